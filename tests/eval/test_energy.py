"""Joules from counters in a folder like the kernel's."""

import pytest

from eval import energy


def zone(home, index, *, now, span=1_000_000_000):
    folder = home / f"intel-rapl:{index}"
    folder.mkdir(exist_ok=True)
    (folder / "energy_uj").write_text(f"{now}\n")
    (folder / "max_energy_range_uj").write_text(f"{span}\n")


def test_packages_add_up_and_a_counter_that_turns_over_is_no_loss(tmp_path):
    zone(tmp_path, 0, now=1_000_000)
    zone(tmp_path, 1, now=999_000_000)
    zone(tmp_path, "0:0", now=5)  # a part of package 0
    meter = energy.meter("cpu", home=tmp_path)

    def work():
        zone(tmp_path, 0, now=4_000_000)
        zone(tmp_path, 1, now=1_000_000)

    assert energy.spent(meter, work) == pytest.approx(3 + 2)
    assert energy.spent(meter, lambda: None) == 0.0


def test_without_counters_the_reason_is_given(tmp_path):
    with pytest.raises(energy.NoEnergy, match="virtual machine"):
        energy.meter("cpu", home=tmp_path)
    ran = []
    assert energy.spent(None, lambda: ran.append(1)) is None
    assert ran == [1]
