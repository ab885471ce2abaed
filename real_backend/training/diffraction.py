"""4D-STEM: a convergent electron probe scans a thin crystal, and a detector takes a diffraction pattern each time.

What is kept: real atoms (:mod:`real_backend.training.atoms`), a relativistic electron, an aperture with defocus,
several scattering in slices (multislice), the detector's pixels, and the noise of counting a stated dose. What is
not: aberrations beyond defocus, a source of finite size, inelastic scattering.

Units: Angstrom, 1/Angstrom, V Angstrom, kV, mrad, electrons/Angstrom^2. Formulas: Kirkland, Advanced Computing in
Electron Microscopy (wavelength and interaction constant; transmission exp(i sigma v) and Fresnel propagation
exp(-i pi lambda k^2 dz) in turn, after Cowley and Moodie 1957; chi = -pi lambda defocus k^2). Constants: CODATA 2018.

STEMDL's own layout, the 1,024 pixels of a detector as the channels of a 512 x 512 image, is kept at full size: a
window of 32 x 32 pixels has as many spatial frequencies. Smaller microscopes scan less and bin the detector.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, pi, sqrt

import torch
from torch import Tensor

from real_backend.training.atoms import Crystal, draw_crystal, projected_potential

REST_EV, HC_EV_ANGSTROM = 510_998.95, 12_398.419_843
"""m c^2 of the electron in eV; h c in eV Angstrom."""
POSITIONS_AT_ONCE = {"cpu": 128, "cuda": 8192}
"""Probe positions in one FFT: at a window of 32, waves of 1 MiB, which stay in a cache (2.3 x faster), or of 64 MiB."""


@dataclass(frozen=True, slots=True)
class Microscope:
    """The instrument, the scan and the grid on which waves are computed."""

    scan: tuple[int, int] = (32, 32)
    """Probe positions y, x."""
    kilovolts: float = 200.0
    aperture_mrad: float = 20.0
    """Half angle of the probe's cone."""
    defocus: float = 60.0
    """Angstrom; positive is under focus."""
    dose: float = 20_000.0
    """Electrons/Angstrom^2; a probe position gets those of one square of the scan."""
    pixel: float = 0.2
    """Angstrom."""
    stride: int = 2
    """Pixels from one probe position to the next."""
    window: int = 32
    """Pixels along each edge of a probe's wave; it scatters to at most wavelength / (2 pixel), here 63 mrad."""
    bins: int = 4
    """Pixels of the pattern along each edge of a detector pixel."""
    slices: int = 3
    slice_thickness: float = 4.0
    """Angstrom."""

    @property
    def channels(self) -> int:
        return (self.window // self.bins) ** 2

    @property
    def grid(self) -> tuple[int, int]:
        """Pixels y, x of the potential: every probe's window lies inside."""
        height, width = ((steps - 1) * self.stride + self.window for steps in self.scan)
        return height, width

    @property
    def electrons(self) -> float:
        """Per diffraction pattern."""
        return self.dose * (self.stride * self.pixel) ** 2


FULL = Microscope(scan=(512, 512), bins=1)
"""STEMDL's layout: 1,024 channels of 512 x 512, here of a field of 205 x 205 Angstrom."""


def wavelength(kilovolts: float) -> float:
    """Of an electron accelerated by so many kV, in Angstrom: h c / sqrt(E (2 m c^2 + E))."""
    energy = 1e3 * kilovolts
    return HC_EV_ANGSTROM / sqrt(energy * (2 * REST_EV + energy))


def interaction(kilovolts: float) -> float:
    """sigma in rad/(V Angstrom): 2 pi / (lambda E) (m c^2 + E) / (2 m c^2 + E)."""
    energy = 1e3 * kilovolts
    return 2 * pi / (wavelength(kilovolts) * energy) * (REST_EV + energy) / (2 * REST_EV + energy)


def potential(microscope: Microscope, crystal: Crystal, device: torch.device) -> Tensor:
    """[slice, y, x] on the microscope's grid, in V Angstrom.

    It ends at 2/3 of the grid's highest frequency (Kirkland's rule), so that products of it and the probe do not
    fold back. The waves themselves are not cut: no electron is lost, and what scatters twice beyond folds back.
    """
    cutoff = 2 / 3 / (2 * microscope.pixel)
    return projected_potential(
        crystal, slices=microscope.slices, grid=microscope.grid, pixel=microscope.pixel, cutoff=cutoff, device=device
    )


def probe(microscope: Microscope, device: torch.device) -> Tensor:
    """The wave [y, x] of one electron in the middle of its window: its squares sum to 1."""
    k_squared = _k_squared(microscope, device)
    length = wavelength(microscope.kilovolts)
    passes = k_squared.sqrt() * length <= 1e-3 * microscope.aperture_mrad
    chi = -pi * length * microscope.defocus * k_squared
    wave = torch.fft.fftshift(torch.fft.ifft2(passes * torch.exp(-1j * chi)))
    one: Tensor = wave / wave.abs().square().sum().sqrt()
    return one.to(torch.complex64)


def patterns(microscope: Microscope, slices_v: Tensor) -> Tensor:
    """Share of the electrons in each detector pixel, [channel, y, x]: channels row by row, y and x of the scan.

    ``slices_v`` is the potential [slice, y, x]. The middle of the pattern is the corner of four detector pixels. The
    sum over channels is 1.
    """
    device, size, bins = slices_v.device, microscope.window, microscope.bins
    entering = probe(microscope, device)
    sigma = interaction(microscope.kilovolts)
    transmission = torch.exp(1j * sigma * slices_v).to(torch.complex64)
    # [slice, scan y, scan x, window y, window x], a view
    windows = transmission.unfold(1, size, microscope.stride).unfold(2, size, microscope.stride)
    fresnel = -pi * wavelength(microscope.kilovolts) * microscope.slice_thickness * _k_squared(microscope, device)
    propagator = torch.exp(1j * fresnel).to(torch.complex64)
    rows = ceil(POSITIONS_AT_ONCE[device.type] / microscope.scan[1])
    out = []
    for first in range(0, microscope.scan[0], rows):
        wave = entering
        for number, here in enumerate(windows[:, first : first + rows]):
            if number > 0:
                wave = torch.fft.ifft2(torch.fft.fft2(wave) * propagator)
            wave = wave * here
        intensity = torch.view_as_real(torch.fft.fft2(wave)).square().sum(dim=-1) / size**2
        far = torch.fft.fftshift(intensity, dim=(-2, -1))
        binned = far.reshape(*far.shape[:2], size // bins, bins, size // bins, bins).sum(dim=(-3, -1))
        out.append(binned.flatten(-2))
    return torch.cat(out).permute(2, 0, 1).contiguous()


def counted(microscope: Microscope, shares: Tensor, noise: torch.Generator) -> Tensor:
    """``shares`` of the electrons as counted at the dose, over the dose: Poisson noise. ``noise`` is on its device."""
    return torch.poisson(shares * microscope.electrons, generator=noise) / microscope.electrons


def at_probe_positions(microscope: Microscope, slices_v: Tensor, blur: float) -> Tensor:
    """Potential of all slices [y, x of the scan] in V Angstrom, blurred by a Gaussian of that sigma (Angstrom).

    Without the blur, columns would be sharper than the steps of the scan.
    """
    total = slices_v.sum(dim=0)
    g_y, g_x = (torch.fft.fftfreq(pixels, microscope.pixel, device=total.device) for pixels in total.shape)
    soft = torch.exp(-2 * (pi * blur) ** 2 * (g_y[:, None] ** 2 + g_x**2))
    blurred: Tensor = torch.fft.ifft2(torch.fft.fft2(total) * soft).real
    middle, stride = microscope.window // 2, microscope.stride
    height, width = microscope.scan
    return blurred[middle::stride, middle::stride][:height, :width]


def sample(
    microscope: Microscope, draws: torch.Generator, noise: torch.Generator, blur: float
) -> tuple[Tensor, Tensor]:
    """Counted patterns [channel, y, x] of a random crystal and its potential [1, y, x] in V Angstrom.

    ``draws`` is a generator on the CPU, ``noise`` one on the device that computes.
    """
    height, width = (pixels * microscope.pixel for pixels in microscope.grid)
    crystal = draw_crystal(draws, (height, width), microscope.slices)
    slices_v = potential(microscope, crystal, noise.device)
    shares = counted(microscope, patterns(microscope, slices_v), noise)
    return shares, at_probe_positions(microscope, slices_v, blur)[None]


def _k_squared(microscope: Microscope, device: torch.device) -> Tensor:
    """[y, x] in 1/Angstrom^2 over a window, in FFT order.

    Frequencies lie half a step off zero, the same on both sides of it, so that a detector with an even number of
    pixels has the beam in its middle. Waves are thus kept divided by exp(i pi (x + y) / window), which changes no
    product with a transmission, and no intensity.
    """
    k = torch.fft.fftfreq(microscope.window, microscope.pixel, dtype=torch.float64, device=device)
    squares: Tensor = (k + 1 / (2 * microscope.window * microscope.pixel)) ** 2
    return squares[:, None] + squares
