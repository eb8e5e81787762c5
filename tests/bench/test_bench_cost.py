"""The costs that `make bench-train` reports: CPU-seconds and GFLOP per film."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from jobs.segmentation.fit_config import build_model
from tests.bench import cost, flops, launch, ours

pytestmark = pytest.mark.slow

SIZE = 32


@pytest.mark.parametrize(("budget", "epoch_cost", "epochs"), [(10, 3, 3), (9, 3, 3), (2, 3, 1)])
def test_no_more_epochs_are_planned_than_fit_into_the_budget(
    budget: float, epoch_cost: float, epochs: int
) -> None:
    assert cost.epochs_within(budget, epoch_cost) == epochs


@pytest.fixture
def spend(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Advances the CPU-seconds of this process, which stand still otherwise."""
    total = 100.0

    def advance(seconds: float) -> None:
        nonlocal total
        total += seconds

    monkeypatch.setattr(cost, "cpu_seconds", lambda: total)
    return advance


def test_steps_are_taken_while_some_of_the_budget_is_left(spend: Callable[[float], None]) -> None:
    clock = cost.Clock(10)
    spend(50)
    shares = []
    for share in clock.steps():
        shares.append(share)
        spend(3)
        clock.end_step(6, 0.0)
    assert shares == pytest.approx([0, 0.3, 0.6, 0.9])
    assert clock.facts()["cpu_seconds"] == 12


def test_validation_costs_budget_but_no_throughput(spend: Callable[[float], None]) -> None:
    clock = cost.Clock(10)
    for _ in clock.steps():
        spend(2)
        clock.end_step(6, 0.0)
        spend(3)
    facts = clock.facts()
    assert facts["cpu_seconds"] == 10
    assert facts["films_seen"] == 12 and facts["images_per_cpu_second"] == 3


def test_cpu_seconds_count_this_process_and_its_children() -> None:
    before = cost.cpu_seconds()
    launch.run_all({"burn": [sys.executable, "-c", "sum(range(3_000_000))"]}, 1)
    assert cost.cpu_seconds() > before


def test_a_step_costs_three_forward_passes_less_the_gradient_of_the_films() -> None:
    model = build_model(ours.fit_config("small", size=SIZE, epochs=1, seed=0))
    forward = flops.gflops_per_film(model, SIZE)
    assert 2.5 * forward < flops.gflops_of_training(model, SIZE) < 3 * forward
    model.eval()
    with torch.no_grad():
        macs: list[int] = []
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.register_forward_hook(
                    lambda conv, _, out: macs.append(out.numel() * conv.weight[0].numel())
                )
        model(torch.zeros(1, 1, SIZE, SIZE))
    assert forward * 1e9 == pytest.approx(2 * sum(macs))
