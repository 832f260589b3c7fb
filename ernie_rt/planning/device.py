"""Devices to plan for."""

from __future__ import annotations

from ernie_rt.contract.planner import Device

__all__ = ["Device"]
