"""Small crystals of real atoms and their electrostatic potential, projected along the beam.

Lengths are in Angstrom, spatial frequencies g in 1/Angstrom (g = 2 sin(theta) / wavelength), projected potentials in
V Angstrom. Axes of a plane are [y, x].

Electron scattering factors: Lobato and Van Dyck, Acta Cryst. A 70 (2014) 636, f(g) = sum of
a (2 + b g^2) / (1 + b g^2)^2 over five pairs (a, b), for neutral atoms. Their tails obey Mott and Bethe: the sum of
a / b is Z / (2 pi^2 a0), a0 the Bohr radius. Thermal motion is the Debye-Waller factor exp(-B g^2 / 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, pi, sin

import torch
from torch import Tensor

LOBATO: dict[int, tuple[tuple[float, float], ...]] = {
    6: ((124.466088621343, 2.42120849256005), (-220.352857078963, 2.30537943752425),
        (195.235352280479, 2.04851932106564), (-98.1079361269799, 1.93352552917547),
        (0.0142023041213623, 0.0768976818478339)),
    14: ((2.87189142611612, 5.08487103642989), (-2.06173501195173, 0.429178185305126),
         (2.17114024204478, 0.366485434192162), (-0.0663073633058801, 0.119710611296903),
         (0.00301070709670513, 0.0143994536128397)),
    22: ((8.57595775238129, 6.00780668875581), (-210.331563465304, 2.60285856745213),
         (206.097172601541, 2.55352345051105), (0.0477773948977261, 0.0711429484024153),
         (0.00050571648448032, 0.00485628439383726)),
    38: ((4.77092509299826, 13.3668881330412), (1.47597850155283, 1.33738379577196),
         (0.304451355544188, 0.177532369437782), (0.00359474981916728, 0.00779105033001826),
         (3.0008554923e-07, 0.00028225513964854)),
    42: ((2.83105968432053, 10.435719575895), (2.34858137489674, 1.60482868674597),
         (0.245105888429696, 0.131696934774606), (0.00235282108218515, 0.00554977901383345),
         (2.3127083834e-07, 0.0002227474637649)),
    79: ((1.6759346706487, 5.52231093211402), (3.00486602969729, 1.38007223007196),
         (0.595340013161635, 0.162229237655945), (0.0117163186623094, 0.00901814890416575),
         (4.296782976398e-05, 0.00037927766747767)),
}  # fmt: skip
"""Pairs (a in Angstrom, b in Angstrom^2) of C, Si, Ti, Sr, Mo and Au by atomic number."""
VOLTS = 47.877645
"""h^2 / (2 pi m e) in V Angstrom^2 (CODATA): scattering factor to Fourier transform of the potential."""
DEBYE_WALLER = 0.5
"""B in Angstrom^2, the same for all: a usual size for a crystal at room temperature."""


@dataclass(frozen=True, slots=True)
class Crystal:
    """Atoms of a thin specimen, cut into slices across the beam."""

    places: Tensor
    """[atom, (y, x)] in Angstrom, float64."""
    elements: Tensor
    """[atom] atomic number, a key of LOBATO."""
    slices: Tensor
    """[atom] slice, from 0 at the beam's entrance."""


def scattering_factor(element: int, g_squared: Tensor) -> Tensor:
    """f(g) in Angstrom, at rest, of the shape of ``g_squared`` (1/Angstrom^2)."""
    parts = [a * (2 + b * g_squared) / (1 + b * g_squared) ** 2 for a, b in LOBATO[element]]
    return torch.stack(parts).sum(dim=0)


def draw_crystal(draws: torch.Generator, extent: Sequence[float], slices: int) -> Crystal:
    """A random crystal that fills ``extent`` (y, x), or half of it, with vacuum beyond a straight edge.

    One or two columns in each cell of an oblique lattice of 2.6 to 4 Angstrom, turned at random; each column of one
    element, an atom a slice, of which one in ten is missing.
    """

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=draws, dtype=torch.float64))

    first, second, turn = uniform(2.6, 4.0), uniform(2.6, 4.0), uniform(0, 2 * pi)
    other = turn + uniform(pi / 3, 2 * pi / 3)
    cell = torch.tensor(
        [[first * sin(turn), first * cos(turn)], [second * sin(other), second * cos(other)]], dtype=torch.float64
    )
    edges = torch.tensor(list(extent), dtype=torch.float64)
    # The shortest distance between rows is 2.6 sin(60 degrees); so many rows reach the far corner from the middle.
    reach = int(edges.norm() / 2 / (2.6 * sin(pi / 3))) + 2
    steps = torch.arange(-reach, reach + 1, dtype=torch.float64)
    nodes = torch.cartesian_prod(steps, steps) + torch.rand(2, generator=draws, dtype=torch.float64)
    elements = tuple(LOBATO)
    columns, kinds = [], []
    for corner in (0.0, 0.5)[: 1 if uniform(0, 1) < 0.3 else 2]:
        kind = elements[int(uniform(0, len(elements)))]
        columns.append((nodes + corner) @ cell + edges / 2)
        kinds.append(torch.full((len(nodes),), kind))
    places, numbers = torch.cat(columns), torch.cat(kinds)
    keep = ((places >= 0) & (places < edges)).all(dim=1)
    if uniform(0, 1) < 0.5:
        across, shift = uniform(0, 2 * pi), uniform(-0.2, 0.2) * float(edges.min())
        normal = torch.tensor([sin(across), cos(across)], dtype=torch.float64)
        keep &= (places - edges / 2) @ normal < shift
    places, numbers = places[keep], numbers[keep]
    present = torch.rand(slices, len(places), generator=draws, dtype=torch.float64) >= 0.1
    slice_of, column = present.nonzero(as_tuple=True)
    return Crystal(places[column], numbers[column], slice_of)


def projected_potential(
    crystal: Crystal, *, slices: int, grid: Sequence[int], pixel: float, cutoff: float, device: torch.device
) -> Tensor:
    """[slice, y, x] in V Angstrom, float32, band-limited at ``cutoff`` (1/Angstrom); ``grid`` is (pixels y, x).

    Each atom is placed in Fourier space, where a place between pixels costs nothing; so the grid is periodic.
    """
    g_y = torch.fft.fftfreq(grid[0], pixel, dtype=torch.float64, device=device)
    g_x = torch.fft.rfftfreq(grid[1], pixel, dtype=torch.float64, device=device)
    g_squared = g_y[:, None] ** 2 + g_x**2
    damping = VOLTS * torch.exp(-DEBYE_WALLER / 4 * g_squared) * (g_squared <= cutoff**2)
    planes = torch.zeros(slices, *g_squared.shape, dtype=torch.complex64, device=device)
    for element in sorted(set(crystal.elements.tolist())):
        factor = (scattering_factor(element, g_squared) * damping).to(torch.complex64)
        for number in range(slices):
            here = crystal.places[(crystal.elements == element) & (crystal.slices == number)].to(device)
            wave_y = torch.exp(-2j * pi * g_y[:, None] * here[:, 0]).to(torch.complex64)
            wave_x = torch.exp(-2j * pi * here[:, 1, None] * g_x).to(torch.complex64)
            planes[number] += factor * (wave_y @ wave_x)
    potential_v: Tensor = torch.fft.irfft2(planes, s=tuple(grid)) / pixel**2
    return potential_v
