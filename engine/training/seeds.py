"""Random numbers as a function of (seed, step, purpose), so that a resumed run draws what the unbroken one drew."""

from __future__ import annotations

import hashlib

import torch


def derived_seed(seed: int, step: int, purpose: str) -> int:
    """A 63-bit seed for one purpose in one step; other steps, seeds and purposes give unrelated ones."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_at(seed: int, step: int, purpose: str, device: torch.device) -> torch.Generator:
    """A fresh generator on `device` for one purpose in one step (no device sync: seeding happens on the host)."""
    return torch.Generator(device=device).manual_seed(derived_seed(seed, step, purpose))
