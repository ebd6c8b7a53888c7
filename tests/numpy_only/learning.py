"""Losses and small networks written by hand. Plain NumPy."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x, axis=-1):
    shifted = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return shifted / np.sum(shifted, axis=axis, keepdims=True)


def kmeans(centres, points):
    """Mean squared distance to the nearest centre (Lloyd 1982)."""
    squared = ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2)
    return squared.min(axis=1).mean()


def svm_hinge(weights, bias, features, labels, c=1.0):
    """Soft-margin support vector machine in the primal."""
    margins = labels * (features @ weights + bias)
    return 0.5 * np.dot(weights, weights) + c * np.sum(np.maximum(0, 1 - margins))


def neural_ode(params, state, dt=0.1, steps=6):
    """Heun steps of dy/dt = W2 tanh(W1 y + b1) + b2 (Chen et al. 2018)."""
    (w1, b1), (w2, b2) = params

    def field(y):
        return w2 @ np.tanh(w1 @ y + b1) + b2

    for _ in range(steps):
        k = field(state)
        state = state + dt / 2 * (k + field(state + dt * k))
    return state


def gru(params, inputs):
    """Last state of a gated recurrent unit over a short sequence (Cho et al. 2014)."""
    h = np.zeros_like(params["wz"][0])
    for x in inputs:
        xh = np.concatenate([x, h])
        z = sigmoid(xh @ params["wz"])
        r = sigmoid(xh @ params["wr"])
        candidate = np.tanh(np.hstack((x, r * h)) @ params["wh"])
        h = (1 - z) * h + z * candidate
    return h


def attention_head(x, wq, wk, wv):
    """Causal scaled dot-product attention (Vaswani et al. 2017)."""
    q, k, v = x @ wq, x @ wk, x @ wv
    scores = q @ k.T / np.sqrt(k.shape[-1])
    mask = np.tril(np.ones((len(x), len(x)), dtype=bool))
    return softmax(np.where(mask, scores, -1e9)) @ v


def multi_head_attention(x, wq, wk, wv, heads=2):
    """Attention with heads, written with einsum."""
    t, d = x.shape
    q = np.einsum("td,dk->tk", x, wq).reshape(t, heads, -1)
    k = np.einsum("td,dk->tk", x, wk).reshape(t, heads, -1)
    v = np.einsum("td,dk->tk", x, wv).reshape(t, heads, -1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(d // heads)
    return np.einsum("hqk,khd->qhd", softmax(scores), v).reshape(t, d)


def contrastive(left, right, temperature=0.2):
    """InfoNCE between two views of the same items (van den Oord et al. 2018)."""
    left = left / np.linalg.norm(left, axis=1, keepdims=True)
    right = right / np.linalg.norm(right, axis=1, keepdims=True)
    similarity = left @ right.T / temperature
    top = np.amax(similarity, axis=1)
    log_norm = top + np.log(np.exp(similarity - top[:, None]).sum(axis=1))
    return np.mean(log_norm - np.diag(similarity))


def pagerank(links, damping=0.85, sweeps=8):
    """Entropy of the ranks after power iterations (Brin and Page 1998)."""
    weights = np.exp(links)
    transition = weights / np.sum(weights, axis=0)
    n = links.shape[0]
    rank = np.ones(n) / n
    for _ in range(sweeps):
        rank = (1 - damping) / n + damping * transition.dot(rank)
    return -np.sum(rank * np.log(rank))


def stochastic_neighbours(embedding, affinities):
    """KL divergence of t-SNE (van der Maaten and Hinton 2008)."""
    delta = np.expand_dims(embedding, 1) - np.expand_dims(embedding, 0)
    weight = 1 / (1 + np.sum(delta**2, axis=-1))
    weight = weight * (1 - np.eye(len(embedding)))
    q = weight / weight.sum() + 1e-12
    return np.sum(affinities * (np.log(affinities + 1e-12) - np.log(q)))


def matrix_factorisation(users, items, ratings, l2=0.05):
    """Squared error on the observed ratings (NaN where missing)."""
    seen = ~np.isnan(ratings)
    error = np.where(seen, users @ items.T - np.nan_to_num(ratings), 0.0)
    return (error**2).sum() / seen.sum() + l2 * (np.sum(users**2) + np.sum(items**2))


def boltzmann_free_energy(weights, visible_bias, hidden_bias, visible):
    """Free energy of a restricted Boltzmann machine (Hinton 2002)."""
    hidden = visible @ weights + hidden_bias
    softplus = np.maximum(hidden, 0) + np.log1p(np.exp(-np.abs(hidden)))
    return np.mean(-visible @ visible_bias - softplus.sum(axis=1))


def variational_bound(encoder, decoder, data, noise):
    """Negative evidence bound of a linear Gaussian autoencoder (Kingma and Welling 2014)."""
    mean, log_var = np.split(data @ encoder, 2, axis=1)
    latent = mean + np.exp(0.5 * log_var) * noise
    reconstruction = np.tanh(latent) @ decoder
    kl = 0.5 * np.sum(np.exp(log_var) + mean**2 - 1 - log_var, axis=1)
    return np.mean(kl + 0.5 * np.sum((data - reconstruction) ** 2, axis=1))


def convolution_1d(kernel, signal):
    """A valid 1-d convolution from stacked windows, layer-normalised, then GELU by tanh (Hendrycks and Gimpel 2016)."""
    width = len(kernel)
    windows = np.stack([signal[i : len(signal) - width + 1 + i] for i in range(width)], axis=1)
    y = windows @ kernel
    y = (y - np.mean(y)) / np.sqrt(np.var(y) + 1e-5)
    return 0.5 * y * (1 + np.tanh(np.sqrt(2 / np.pi) * (y + 0.044715 * y**3)))


def tensor_train(cores, indices):
    """An entry-wise loss on a tensor given by its train of cores (Oseledets 2011)."""
    first, middle, last = cores
    full = np.einsum("ia,ajb,bk->ijk", first, middle, last)
    i, j, k = indices
    return np.sum((full[i, j, k] - 1.0) ** 2)
