"""The physics of the diffraction patterns that STEMDL is trained on, against textbooks and by symmetry."""

from __future__ import annotations

from dataclasses import replace
from math import pi

import pytest
import torch
from torch import Tensor

from real_backend.training.atoms import LOBATO, VOLTS, Crystal, draw_crystal, scattering_factor
from real_backend.training.diffraction import (
    FULL,
    Microscope,
    at_probe_positions,
    counted,
    interaction,
    patterns,
    potential,
    probe,
    wavelength,
)

CPU = torch.device("cpu")
SMALL = Microscope(scan=(8, 8))
FINE = replace(SMALL, bins=1)
"""Every spatial frequency of a pattern apart."""


def crystal(*atoms: tuple[float, float, int, int]) -> Crystal:
    """Of (y, x, element, slice)."""
    places = torch.tensor([atom[:2] for atom in atoms], dtype=torch.float64).reshape(-1, 2)
    return Crystal(places, torch.tensor([atom[2] for atom in atoms]), torch.tensor([atom[3] for atom in atoms]))


def random_crystal(scope: Microscope, seed: int = 0) -> Crystal:
    height, width = (pixels * scope.pixel for pixels in scope.grid)
    return draw_crystal(torch.Generator().manual_seed(seed), (height, width), scope.slices)


def half_angles_mrad(scope: Microscope) -> Tensor:
    """Of each channel at ``bins`` 1, row by row."""
    k = (torch.arange(scope.window) - scope.window / 2 + 0.5) / (scope.window * scope.pixel)
    return (1e3 * wavelength(scope.kilovolts) * (k[:, None] ** 2 + k**2).sqrt()).flatten()


@pytest.mark.parametrize(("kilovolts", "picometres"), [(100, 3.701), (200, 2.508), (300, 1.969)])
def test_wavelengths_are_those_of_the_textbooks(kilovolts: float, picometres: float) -> None:
    assert 100 * wavelength(kilovolts) == pytest.approx(picometres, abs=5e-4)


@pytest.mark.parametrize(("kilovolts", "sigma"), [(100, 9.244e-4), (200, 7.288e-4)])
def test_interaction_constants_are_those_of_the_textbooks(kilovolts: float, sigma: float) -> None:
    assert interaction(kilovolts) == pytest.approx(sigma, rel=2e-4)


@pytest.mark.parametrize("element", sorted(LOBATO))
def test_scattering_at_high_angles_is_that_of_the_bare_nucleus(element: int) -> None:
    """Mott and Bethe: f(g) g^2 goes to Z / (2 pi^2 a0). A digit missing from the table would show."""
    bohr_radius = 0.529177210903
    far = torch.tensor(1e6, dtype=torch.float64)
    assert float(scattering_factor(element, far**2) * far**2) == pytest.approx(element / (2 * pi**2 * bohr_radius))


def test_an_atom_has_the_potential_that_its_scattering_factor_says() -> None:
    """The integral over the plane is the forward scattering; the place is the atom's."""
    y, x = 30 * FINE.pixel, 20 * FINE.pixel
    plane = potential(FINE, crystal((y, x, 42, 1)), CPU)
    forward = VOLTS * float(scattering_factor(42, torch.tensor(0.0, dtype=torch.float64)))
    assert float(plane[1].sum()) * FINE.pixel**2 == pytest.approx(forward, rel=1e-4)
    assert divmod(int(plane[1].argmax()), plane.shape[2]) == (30, 20)
    assert float(plane[[0, 2]].abs().max()) == 0.0


def test_a_probe_is_one_electron_in_the_middle_of_its_window() -> None:
    shares = probe(replace(FINE, defocus=0.0), CPU).abs().square()
    assert float(shares.sum()) == pytest.approx(1, abs=1e-6)
    assert divmod(int(shares.argmax()), FINE.window) == (FINE.window // 2, FINE.window // 2)
    spread = probe(replace(FINE, defocus=200.0), CPU).abs().square()
    assert float(spread.max()) < 0.5 * float(shares.max())


def test_no_electron_is_lost() -> None:
    shares = patterns(SMALL, potential(SMALL, random_crystal(SMALL), CPU))
    assert shares.shape == (SMALL.channels, 8, 8)
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(8, 8), rtol=0, atol=1e-5)


def test_without_a_specimen_there_is_the_bright_disc_alone() -> None:
    shares = patterns(FINE, torch.zeros(FINE.slices, *FINE.grid))
    angles = half_angles_mrad(FINE)
    inside = angles <= FINE.aperture_mrad
    assert float(shares[~inside].max()) < 1e-10
    expected = 1 / int(inside.sum())
    torch.testing.assert_close(shares[inside], torch.full_like(shares[inside], expected), rtol=1e-3, atol=0)


def test_heavy_columns_scatter_further_than_light_ones() -> None:
    middle = FINE.grid[0] // 2 * FINE.pixel
    dark = half_angles_mrad(FINE) > 2 * FINE.aperture_mrad
    annular = [
        float(patterns(FINE, potential(FINE, crystal((middle, middle, element, 0)), CPU))[dark].sum(dim=0).max())
        for element in (6, 14, 42, 79)
    ]
    assert annular == sorted(annular)
    assert annular[-1] > 10 * annular[0]


def test_a_weak_atom_deflects_towards_itself() -> None:
    """The centre of the pattern moves to the atom (electrons are drawn to a nucleus), on both its sides."""
    scope = replace(FINE, defocus=0.0)
    row = scope.window // 2 + 4 * scope.stride
    shares = patterns(scope, potential(scope, crystal((row * scope.pixel, row * scope.pixel, 14, 0)), CPU))
    k = torch.arange(scope.window) - scope.window / 2 + 0.5
    centre_x = (shares.view(scope.window, scope.window, *scope.scan).sum(dim=0) * k[:, None, None]).sum(dim=0)
    assert float(centre_x[4, 3]) > 0.01
    assert float(centre_x[4, 5]) < -0.01
    assert abs(float(centre_x[4, 4])) < 1e-3


def test_moving_the_specimen_moves_the_scan() -> None:
    scope = replace(SMALL, scan=(8, 10))
    atoms = random_crystal(scope)
    moved = Crystal(atoms.places + torch.tensor([2, 1]) * scope.stride * scope.pixel, atoms.elements, atoms.slices)
    before, after = (patterns(scope, potential(scope, each, CPU)) for each in (atoms, moved))
    torch.testing.assert_close(after[:, 2:, 1:], before[:, :-2, :-1], rtol=1e-3, atol=1e-6)
    seen, seen_moved = (at_probe_positions(scope, potential(scope, each, CPU), 0.3) for each in (atoms, moved))
    torch.testing.assert_close(seen_moved[2:, 1:], seen[:-2, :-1], rtol=1e-3, atol=0.1)


def test_the_potential_that_is_looked_for_lies_under_the_probe() -> None:
    place = (FINE.window // 2 + 3 * FINE.stride) * FINE.pixel
    seen = at_probe_positions(FINE, potential(FINE, crystal((place, place, 79, 2)), CPU), 0.3)
    assert divmod(int(seen.argmax()), 8) == (3, 3)


def test_several_scattering_depends_on_the_order_of_the_slices() -> None:
    middle = FINE.grid[0] // 2 * FINE.pixel
    slices_v = potential(FINE, crystal((middle, middle, 79, 0), (middle + 1.0, middle, 38, 2)), CPU)
    shares, reversed_ = patterns(FINE, slices_v), patterns(FINE, slices_v.flip(0))
    assert float((shares - reversed_).abs().max()) > 1e-5
    at_once = patterns(replace(FINE, slice_thickness=0.0), slices_v)
    phase_only = patterns(replace(FINE, slices=1), slices_v.sum(dim=0, keepdim=True))
    torch.testing.assert_close(at_once, phase_only, rtol=1e-3, atol=1e-6)


def test_counts_are_whole_and_as_noisy_as_the_dose_says() -> None:
    shares = torch.full((64, 40, 40), 1 / 64)
    seen = counted(SMALL, shares, torch.Generator().manual_seed(1)) * SMALL.electrons
    assert SMALL.electrons == pytest.approx(20_000 * 0.4**2)
    torch.testing.assert_close(seen, seen.round(), rtol=0, atol=1e-2)
    assert float(seen.mean()) == pytest.approx(50, rel=0.01)
    assert float(seen.var()) == pytest.approx(50, rel=0.03)


def test_the_full_layout_gives_a_channel_to_every_spatial_frequency() -> None:
    scope = replace(FULL, scan=(2, 512))
    shares = patterns(scope, torch.zeros(scope.slices, *scope.grid))
    assert shares.shape == (1024, 2, 512)
