"""Rotations, curves, images and signals. Plain NumPy."""

import numpy as np


def rodrigues(rotation, points):
    """Rotate points by an axis-angle vector (Rodrigues 1840)."""
    angle = np.sqrt(np.sum(rotation**2) + 1e-12)
    axis = rotation / angle
    cos, sin = np.cos(angle), np.sin(angle)
    along = np.sum(points * axis, axis=-1, keepdims=True)
    return points * cos + np.cross(axis, points) * sin + axis * along * (1 - cos)


def bundle_adjustment(camera, points, observed):
    """Reprojection residuals of one camera [rotation 3, translation 3, focal, k1, k2] (the BAL model)."""
    rotation, translation, focal = camera[:3], camera[3:6], camera[6]
    k1, k2 = camera[7], camera[8]
    p = rodrigues(rotation, points) + translation
    plane = -p[:, :2] / p[:, 2:3]
    r2 = np.sum(plane**2, axis=1)
    distortion = 1 + k1 * r2 + k2 * r2**2
    return (focal * distortion[:, np.newaxis] * plane - observed).ravel()


def quaternion_alignment(quaternion, source, target):
    """Squared error after rotating by a quaternion, through its rotation matrix."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    matrix = np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)]),
            np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)]),
            np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)]),
        ]
    )
    return np.sum((source @ matrix.T - target) ** 2)


def two_link_arm(angles, lengths):
    """Tip of a planar arm: sums of angles down the links."""
    total = np.cumsum(angles)
    return np.stack([np.sum(lengths * np.cos(total)), np.sum(lengths * np.sin(total))])


def great_circle(first, second, radius=6371.0):
    """Haversine distance between two (latitude, longitude) points in degrees."""
    lat1, lon1 = np.deg2rad(first)
    lat2, lon2 = np.deg2rad(second)
    h = np.sin((lat2 - lat1) / 2) ** 2 + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    return 2 * radius * np.arcsin(np.sqrt(h))


def total_variation(image, noisy, weight=0.3, eps=1e-3):
    """Rudin-Osher-Fatemi denoising (1992), the norm of the gradient smoothed by eps."""
    dx = np.diff(image, axis=1)[:-1, :]
    dy = np.diff(image, axis=0)[:, :-1]
    return weight * np.sum(np.sqrt(dx**2 + dy**2 + eps)) + 0.5 * np.sum(np.power(image - noisy, 2))


def horner(coefficients, x):
    """A polynomial at many points by Horner's rule, the highest power first."""
    y = np.zeros_like(x) + coefficients[0]
    for c in coefficients[1:]:
        y = y * x + c
    return y


def b_spline(control, x):
    """A uniform cubic B-spline from its basis function, pieces chosen by np.where."""
    t = np.abs(x[:, None] - np.arange(len(control)))
    inner = 2 / 3 - t**2 + t**3 / 2
    outer = (2 - t) ** 3 / 6
    basis = np.where(t < 1, inner, np.where(t < 2, outer, 0.0))
    return basis @ control


def gradient_noise(gradients, x):
    """One octave of Perlin's gradient noise (1985) on a line, with his smoother fade (2002)."""
    cell = np.floor(x)
    t = x - cell
    left = cell.astype(int) % len(gradients)
    right = (left + 1) % len(gradients)
    fade = t**3 * (t * (t * 6 - 15) + 10)
    a, b = gradients[left] * t, gradients[right] * (t - 1)
    return a + fade * (b - a)


def mandelbrot_escape(cx, cy, steps=8):
    """Smooth escape count of the Mandelbrot iteration in real arithmetic, frozen outside by np.where."""
    x, y = np.zeros_like(cx), np.zeros_like(cy)
    count = np.zeros_like(cx)
    for _ in range(steps):
        inside = x * x + y * y < 4.0
        x, y = np.where(inside, x * x - y * y + cx, x), np.where(inside, 2 * x * y + cy, y)
        count = count + np.where(inside, 1.0, 0.0)
    return count - np.log2(np.log(1.0 + x * x + y * y) + 1.0)


def bezier_length(control, pieces=16):
    """Length of a cubic Bézier curve by a fine polygon."""
    t = np.linspace(0.0, 1.0, pieces + 1)[:, None]
    curve = (1 - t) ** 3 * control[0] + 3 * t * (1 - t) ** 2 * control[1]
    curve += 3 * t**2 * (1 - t) * control[2] + t**3 * control[3]
    return np.sum(np.linalg.norm(np.diff(curve, axis=0), axis=1))


def polygon_area(vertices):
    """Area by the shoelace formula, and the squared perimeter over it."""
    x, y = vertices[:, 0], vertices[:, 1]
    area = 0.5 * np.abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    perimeter = np.hypot(np.roll(x, -1) - x, np.roll(y, -1) - y).sum()
    return perimeter**2 / area


def smooth_union(centres, radii, points, k=0.4):
    """Signed distance to a smooth union of discs (polynomial smooth minimum)."""
    d = np.linalg.norm(points - centres[0], axis=-1) - radii[0]
    for centre, radius in zip(centres[1:], radii[1:], strict=True):
        other = np.linalg.norm(points - centre, axis=-1) - radius
        h = np.clip(0.5 + 0.5 * (other - d) / k, 0.0, 1.0)
        d = other + h * (d - other) - k * h * (1 - h)
    return d


def antenna_gain(phases, angles):
    """Array factor in decibels of a line of antennas half a wavelength apart."""
    place = np.pi * np.arange(phases.shape[0])
    argument = np.sin(angles)[:, None] * place[None, :] + phases[None, :]
    power = np.cos(argument).sum(1) ** 2 + np.sin(argument).sum(1) ** 2
    return 10 * np.log10(power + 1e-3)


def snell_path(crossings, start=0.0, end=3.0):
    """Optical path of a ray through three layers, and its deflection angles."""
    indices = np.array([1.0, 1.33, 1.5, 1.0])
    x = np.concatenate([np.array([start]), crossings, np.array([end])])
    run = np.diff(x)
    return np.sum(indices * np.sqrt(1 + run**2)) + 0.1 * np.sum(np.arctan(run) ** 2)


def lens_map(source, mass, core=0.2):
    """Images on a polar grid: sinh, cosh and arctan of a softened lens."""
    u = np.arcsinh(source / core)
    deflection = mass * np.arctan(np.sinh(u)) / np.cosh(u)
    return source - deflection
