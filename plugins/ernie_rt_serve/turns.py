"""Work of which a tenant may have so much under way, lest others wait for all that somebody asks for."""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary


class Turns:
    """`async with turns.of(tenant):` waits while `each` of that tenant's are within; they enter as they came."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._tenants: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def of(self, tenant: str) -> asyncio.Semaphore:
        return self._tenants.setdefault(tenant, asyncio.Semaphore(self._each))
