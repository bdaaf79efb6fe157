"""Throughput, utilisation and memory are what the steps and the machine say."""

import pytest
import torch

from engine.training.loop import Step
from engine.training.monitor import GPU_PEAKS, Meter, Peak, measured_peak, memory_gib, peak_of

CPU = torch.device("cpu")


def step(number: int, seconds: float, images: int = 8) -> Step:
    return Step(number, {"mim": 1.0}, 1.0, 0.1, images / seconds, seconds)


def test_throughput_is_images_over_seconds_and_not_a_mean_of_rates() -> None:
    meter = Meter(CPU)
    meter.add(step(1, 1.0), 0)
    meter.add(step(2, 3.0), 0)
    assert meter.vitals(2, {}).images_per_second == pytest.approx(16 / 4)


def test_vitals_speak_of_the_steps_since_the_last_ones() -> None:
    meter = Meter(CPU, Peak(500.0, "told"))
    meter.add(step(1, 1.0), 5_000)
    meter.vitals(1, {})
    meter.add(step(2, 0.5), 100)
    told = meter.vitals(2, {"paired": {"hidden": 0.75}})
    assert (told.step, told.images_per_second, told.mfu, told.masks) == (2, 16.0, 100 / 0.5 / 500, {"paired": {"hidden": 0.75}})


def test_utilisation_is_useful_work_over_what_all_devices_could_do() -> None:
    meter = Meter(CPU, Peak(500.0, "told"), world=4)
    meter.add(step(1, 1.0), 400)  # a step of the warm-up costs less
    meter.add(step(2, 3.0), 1_600)
    assert meter.vitals(2, {}).mfu == pytest.approx(2_000 / 4 / (4 * 500))


def test_without_a_peak_there_is_no_utilisation() -> None:
    meter = Meter(CPU)
    meter.add(step(1, 1.0), 1_000)
    assert meter.vitals(1, {}).mfu is None


def test_memory_is_what_this_process_holds() -> None:
    before = memory_gib(CPU)
    held = torch.ones(2**26)  # a quarter of a GiB
    assert 0.01 < before <= memory_gib(CPU) < 1024
    assert held.sum() == 2**26


def test_the_recipe_s_peak_comes_first_and_says_so() -> None:
    peak = peak_of(CPU, tflops=2.5)
    assert peak is not None
    assert (peak.flops_per_second, "recipe" in peak.source) == (2.5e12, True)
    assert peak_of(CPU) is None


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H200", 989.4),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA L40S", 362.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA GH200 480GB", 989.4),
    ],
)
def test_the_first_word_of_the_table_that_fits_a_name_is_its_own(name: str, tflops: float) -> None:
    assert next(peak for word, peak in GPU_PEAKS if word in name) == tflops


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_peak_can_be_measured_anywhere(dtype: torch.dtype) -> None:
    peak = measured_peak(CPU, dtype, side=64, products=2)
    assert 1e6 < peak.flops_per_second < 1e16
    assert "64 x 64" in peak.source
