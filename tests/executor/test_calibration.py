"""What the machine can do: a shipped table, a measurement that is kept, and nothing that changes a bit."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

import fastgrad as fg
from fastgrad import machine
from fastgrad.cli import main
from fastgrad.codegen import abi, toolchain
from fastgrad.codegen import rates as kept
from fastgrad.codegen import store as stores
from fastgrad.codegen.simd.probe import CHAINS, PROBES, STRIDE, probe_source
from fastgrad.executor import calibration, tape
from fastgrad.executor.calibration import calibrate
from fastgrad.executor.estimate import CALL_NS, estimate

LAYOUT = {"vendor_id": "GenuineIntel", "cpu family": "6", "model": "143", "model name": "Some Processor"}


@pytest.fixture
def counted(monkeypatch):
    """How often the machine is measured; the figures stem from one measurement."""
    measured, calls = dataclasses.replace(calibrate(), steady=True), []

    def rates(self):
        calls.append(1)
        return measured

    monkeypatch.setattr(calibration._Probes, "rates", rates)
    return calls


@pytest.fixture
def folder(counted, tmp_path, monkeypatch):
    """A cache of its own, and nothing known yet."""
    monkeypatch.setenv("FASTGRAD_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "_known", {})
    return tmp_path / "cache"


def again(monkeypatch):
    """As a new process: nothing in memory."""
    monkeypatch.setattr(kept, "_known", {})


# -- the measurement ---------------------------------------------------------------------------------------------------


def test_rates_are_positive_and_ordered_sanely():
    rates = calibrate()
    assert rates.measured and rates.threads >= 1
    assert [level.name for level in rates.levels][-1] == "memory" and rates.levels[0].name == "L1"
    for one, many in (rates.float32, rates.float64, *(p for v in rates.levels for p in (v.read, v.copy))):
        assert 0 < one <= many
    assert rates.float32[0] > rates.float64[0]
    assert rates.levels[0].read[0] > rates.levels[-1].read[0]
    assert rates.row_ns > 0 and rates.region_ns > 0
    sizes = [level.nbytes for level in rates.levels]
    assert sizes == sorted(sizes)


def test_rates_print_and_survive_json():
    rates = dataclasses.replace(calibrate(), steady=True)
    assert machine.from_json(json.loads(json.dumps(rates.to_json()))) == rates
    text = str(rates)
    assert "measured" in text and "float32 GFLOP/s" in text and "memory copy GB/s" in text
    assert "a guess" in str(machine.shipped(16))


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_it_is_measured_once_and_kept(folder, counted, monkeypatch):
    first = calibrate()
    assert len(counted) == 1 and kept.rates() == first and calibrate() == first
    again(monkeypatch)
    assert kept.measured() == first and calibrate() == first and len(counted) == 1
    calibrate(again=True)
    assert len(counted) == 2


def damaged(path, how):
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[:-9], "empty": b"", "flipped": data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]}[how]
    )


@pytest.mark.parametrize("how", ["cut", "empty", "flipped"])
def test_a_damaged_file_is_measured_again(folder, counted, monkeypatch, how):
    calibrate()
    (path,) = folder.glob("*.code")
    damaged(path, how)
    again(monkeypatch)
    assert kept.measured() is None and not kept.rates().measured
    again(monkeypatch)
    assert calibrate().measured and len(counted) == 2
    again(monkeypatch)
    assert kept.measured() is not None


@pytest.mark.parametrize("payload", [b"[]", b"{}", b"no json", b'{"levels": 3}'])
def test_a_sound_file_of_nonsense_is_measured_again(folder, counted, monkeypatch, payload):
    store = stores.store()
    store.put(kept._key(), {"toolchain": kept.target.digest()}, payload)
    assert kept.measured() is None
    again(monkeypatch)
    assert calibrate().measured and len(counted) == 1


def test_a_probe_of_two_threads_is_two_chunks():
    """Each a tile: in one chunk a single thread would do both, and two threads seem as quick as one."""
    plan = calibration._Probes(2)._workspace(0, 3, 2, 2).native.tape.words
    first = int(plan[abi.ROWS_AT])
    rows = plan[first : first + 3 * abi.ROW].reshape(3, abi.ROW)
    assert rows[:, abi.KIND].tolist() == [abi.PARALLEL] * 3
    assert rows[:, abi.TILES].tolist() == rows[:, abi.CHUNKS].tolist() == [2, 2, 2]


@pytest.mark.parametrize(
    "change", [{"row_ns": 0}, {"float32": [1.0, -1.0]}, {"float64": [float("inf"), 1.0]}, {"levels": []}]
)
def test_rates_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="rates must be positive"):
        machine.from_json(calibrate().to_json() | change)


def test_a_cache_that_is_off_or_cannot_be_written(folder, counted, monkeypatch):
    monkeypatch.setenv("FASTGRAD_CACHE_DIR", "off")
    assert calibrate().measured and calibrate().measured and len(counted) == 1
    again(monkeypatch)
    monkeypatch.setenv("FASTGRAD_CACHE_DIR", str(folder))
    folder.write_text("no folder")
    with pytest.warns(stores.CacheWarning, match="is not a folder"):
        assert calibrate().measured
    assert len(counted) == 2 and kept.rates().measured


def test_a_busy_machine_is_not_kept_and_chooses_nothing(folder, counted, monkeypatch):
    busy = dataclasses.replace(calibrate(), steady=False, row_ns=10 * machine.ROW_NS)
    again(monkeypatch)
    for path in folder.glob("*.code"):
        path.unlink()
    monkeypatch.setattr(calibration._Probes, "rates", lambda self: busy)
    assert calibrate() == kept.rates() == busy and "others had some of its cores" in str(busy)
    assert kept.reliable() == machine.shipped(kept.vector_bytes())
    again(monkeypatch)
    assert kept.measured() is None


def test_the_file_is_part_of_the_cache(folder, counted):
    calibrate()
    store = stores.Store(folder)
    assert len(store.files()) == 1 and store.verify() == {}
    assert (store.files()[0][1].st_mode & 0o077) == 0


def test_neither_import_nor_compiling_measures(tmp_path):
    program = (
        "import fastgrad as fg, numpy as np, sys\n"
        "fg.jit(lambda x: x + 1.0)(np.ones(3))\n"
        "print('fastgrad.executor.calibration' in sys.modules and fg.executor.calibration.measured() is not None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        env={**__import__("os").environ, "FASTGRAD_CACHE_DIR": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.strip() == "False", done.stderr


# -- one figure at a time, for benchmarks ------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_one_figure_at_a_time(threads):
    single, double = (calibration.multiply_adds(dtype, threads) for dtype in ("float32", "float64"))
    assert 0 < double < single
    reading, copying = (calibration.streaming(what, 1 << 16, threads) for what in ("read", "copy"))
    assert reading > 0 and copying > 0
    with pytest.raises(KeyError):
        calibration.streaming("write", 1 << 16, threads)


# -- what it may change ------------------------------------------------------------------------------------------------


def with_costs(row_ns, region_ns):
    return machine.from_json(calibrate().to_json() | {"row_ns": row_ns, "region_ns": region_ns})


def test_costs_choose_between_serial_and_shared_of_the_same_bits(monkeypatch):
    x = np.random.default_rng(0).standard_normal((700, 900))

    def shared(row_ns, region_ns):
        monkeypatch.setattr(kept, "measured", lambda: with_costs(row_ns, region_ns))
        executable = fg.jit(lambda x: np.tanh(x * 1.5).sum(), threads=2).compile(x)
        rows = executable.program.native.tape
        return int(rows.words[fg.codegen.abi.N_PARALLEL]), executable(x)[0].tobytes()

    cheap, dear = shared(30.0, 5_000.0), shared(3e9, 3e9)
    assert cheap[1] == dear[1]
    assert cheap[0] >= dear[0]


def test_costs_are_followed_within_a_factor(monkeypatch):
    monkeypatch.setattr(kept, "measured", lambda: None)
    assert tape.thresholds(kept.reliable()) == (tape.PARALLEL_NS, tape.REGION_NS)
    monkeypatch.setattr(kept, "measured", lambda: with_costs(2 * machine.ROW_NS, 1e12))
    assert tape.thresholds(kept.reliable()) == (2 * tape.PARALLEL_NS, tape.FACTOR * tape.REGION_NS)


def machine_of(monkeypatch, **changes):
    """Tapes are built for a machine of two threads, of shipped rates but for the ``changes``."""
    rates = dataclasses.replace(machine.shipped(64, 2), measured=True, **changes)
    monkeypatch.setattr(kept, "measured", lambda: rates)
    return rates


def estimated(f, *arrays):
    """What a program of one kernel is taken to last, and whether its row is shared."""
    words = fg.jit(f, threads=2).compile(*arrays).program.native.tape
    (source,) = words.sources
    return (
        words.cost_ns,
        int(words.words[abi.N_PARALLEL]),
        estimate(source.step, source.tiles).ns(kept.reliable()),
    )


def test_a_product_is_estimated_by_the_peak_rate(monkeypatch):
    a, b = np.ones((352, 512), np.float32), np.ones((512, 352), np.float32)
    machine_of(monkeypatch, float32=(200.0, 400.0))
    cost, shared, alone = estimated(lambda a, b: a @ b, a, b)
    assert cost == pytest.approx(alone) and shared == 1
    assert cost == pytest.approx(2 * 352 * 352 * 512 / 200 / 0.85, rel=0.02)
    machine_of(monkeypatch, float32=(50.0, 100.0))
    assert estimated(lambda a, b: a @ b, a, b)[0] == pytest.approx(4 * cost, rel=0.02)
    machine_of(monkeypatch, float32=(200.0, 200.0))  # the other thread adds nothing
    assert estimated(lambda a, b: a @ b, a, b)[:2] == (pytest.approx(cost), 0)


def test_a_copy_is_estimated_by_the_bandwidth_of_where_it_lies(monkeypatch):
    def rates(near, far):
        levels = (
            machine.Level("L1", 1 << 15, (near, 2 * near), (near, 2 * near)),
            machine.Level("memory", 1 << 62, far, far),
        )
        machine_of(monkeypatch, levels=levels)

    small, large = np.ones(3000, np.float32), np.ones(1 << 20, np.float32)
    rates(100.0, (10.0, 20.0))
    near = estimated(lambda x: x + 1.0, small)[0]
    assert near == pytest.approx(2 * small.nbytes / 100, rel=0.2)
    cost, shared, _ = estimated(lambda x: x + 1.0, large)
    assert cost == pytest.approx(2 * large.nbytes / 10, rel=0.02) and shared == 1
    rates(100.0, (10.0, 10.0))  # one thread draws all that memory gives
    assert estimated(lambda x: x + 1.0, large)[:2] == (pytest.approx(cost), 0)


def test_a_function_of_the_library_counts_one_call_a_value():
    x = np.ones(4096, np.float32)
    of = {f: estimated(f, x)[0] for f in (np.arcsinh, np.abs)}
    assert of[np.arcsinh] > 4096 * CALL_NS > of[np.abs]


# -- the shipped tables ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "near"),
    [
        ("GenuineIntel-6-143", 512), ("GenuineIntel-6-94", 128), ("GenuineIntel-6-126", 256), ("AuthenticAMD-23-1", 256),
        ("AuthenticAMD-25-33", 256), ("AuthenticAMD-25-97", 512), ("AuthenticAMD-26-68", 512), ("GenuineIntel-6-9999", 512),
        ("GenuineIntel-15-94", 512), ("unknown", 512), ("", 512), ("GenuineIntel-6-x", 512), ("0x41-8-0xd0c", 512),
    ],
)  # fmt: skip
def test_cuts_are_a_function_of_the_model_alone(model, near, monkeypatch):
    expected = machine.cuts(model)
    assert expected.near_bytes == near << 10
    busy = machine.shipped(16, 1)
    monkeypatch.setattr(kept, "measured", lambda: busy)
    assert machine.cuts(model) == expected
    monkeypatch.setattr(machine, "cpu", lambda: machine.Cpu(model, "", (1 << 10,), 16))
    assert machine.cuts() == expected and machine.processors().cuts == expected


def test_the_table_has_one_row_a_model_and_every_tile_fits_a_frame():
    rows = machine.PROCESSORS
    for i, row in enumerate(rows):
        for other in rows[i + 1 :]:
            assert row.family != other.family or (
                row.models and other.models and not row.models & other.models
            )
        assert row.cuts.map_block % 256 == 0 and row.cuts.near_bytes % (1 << 10) == 0


def test_the_processor_is_told_by_linux(tmp_path):
    (tmp_path / "proc").mkdir()
    text = (
        "".join(f"{key}\t: {value}\n" for key, value in LAYOUT.items())
        + "flags\t: fpu avx2 fma\n\nmodel: 1\n"
    )
    (tmp_path / "proc/cpuinfo").write_text(text)
    for i, (level, kind, size) in enumerate(
        [(1, "Data", "32K"), (1, "Instruction", "64K"), (2, "Unified", "2M"), (3, "?", "x")]
    ):
        index = tmp_path / f"sys/devices/system/cpu/cpu0/cache/index{i}"
        index.mkdir(parents=True)
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (index / name).write_text(f"{value}\n")
    assert machine.cpu(str(tmp_path)) == ("GenuineIntel-6-143", "Some Processor", (32 << 10, 2 << 20), 32)


def test_a_system_that_tells_nothing(tmp_path):
    found = machine.cpu(str(tmp_path))
    assert found.model == "unknown" and found.vector_bytes == 16 and len(found.caches) == 3


def test_rates_between_one_thread_and_all():
    rates = machine.shipped(64, 8)
    assert rates.peak("float32", 1) < rates.peak("float32", 4) < rates.peak("float32", 8)
    assert rates.level(1 << 10, 1).name == "L1" and rates.level(1 << 50, 1).name == "memory"
    assert rates.move_ns(1000, 0, 1) < rates.move_ns(1000, 1000, 1)
    assert rates.move_ns(0, 0, 1) == 0


# -- the probes --------------------------------------------------------------------------------------------------------


def run_probe(probe, dtype, jit):
    n, tiles = STRIDE, 2
    size = {"f32": 4, "f64": 8}[dtype]
    x = np.linspace(0.25, 1.0, tiles * n // size).astype(f"f{size}")
    y = np.zeros(tiles * n // 8)
    words = np.array([x.ctypes.data, y.ctypes.data, 5 if probe == "multiply_adds" else n, 2])
    text = probe_source(probe, dtype, 16, False)
    if jit:
        native = toolchain.compile_unit("kernel", text)
        assert native.ctypes(words.ctypes.data, 0, tiles) == 0
    else:
        assert toolchain.define(text, jit=False)(words.ctypes.data, 0, tiles) == 0
    return y


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_does_what_its_twin_does(probe, dtype):
    compiled, twin = run_probe(probe, dtype, True), run_probe(probe, dtype, False)
    if probe == "multiply_adds":
        kind = np.float32 if dtype == "f32" else np.float64
        assert (
            np.allclose(compiled.view(kind), twin.view(kind), rtol=1e-6)
            and twin.view(kind)[0] > CHAINS * 0.25
        )
    else:
        assert compiled.tobytes() == twin.tobytes()
        assert probe == "idle" or twin.any()


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_prints_the_machine(folder, counted, capsys):
    assert main(["calibrate"]) == 0
    assert "float32 GFLOP/s" in capsys.readouterr().out
    assert main(["calibrate", "--kept", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["threads"] >= 1
    assert len(counted) == 1
