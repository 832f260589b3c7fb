from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from ernie_rt.contract import Interpreter
from ernie_rt.graph.builder import Builder
from ernie_rt.graph.legalize import Accept, legalize
from ernie_rt.graph.types import Plain, TensorType, Weight
from ernie_rt.reference.ops import MEANINGS

VECTOR = TensorType("float32", ("N", 4))


def test_operands_attributes_and_absent_ones_arrive_in_place() -> None:
    b = Builder()
    x = b.input("x", VECTOR)
    weight = Weight("w", TensorType("float32", (3, 4)), Plain("float32"))
    with b.scope("a"):
        y = b("linear", x, weight)
    with b.scope("b"):
        y = b("reshape", y, dims=(3, "N"))
    graph = b.finish("main", {"logits": y, "again": y})
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def spy(name: str) -> Any:
        def call(*operands: Any, **attrs: Any) -> Any:
            calls.append((operands, attrs))
            return MEANINGS[name](*operands, **attrs)

        return call

    functions = {name: spy(name) for name in MEANINGS}
    rows, matrix = np.arange(8.0).reshape(2, 4), np.ones((3, 4))
    interpreter = Interpreter(legalize(graph, lambda node: Accept(), taps=["a"]), functions, {"w": matrix}, {})
    outputs, taps = interpreter.run({"x": rows}, {"N": 2})
    assert calls[0][0][0] is rows
    assert calls[0][0][1] is matrix
    assert calls[0][0][2] is None
    assert calls[1][1] == {"dims": (3, 2)}
    np.testing.assert_array_equal(outputs["logits"], (rows @ matrix.T).reshape(3, 2))
    assert outputs["again"] is outputs["logits"]
    np.testing.assert_array_equal(taps["a"], rows @ matrix.T)


def test_a_value_goes_after_its_last_use_and_one_that_nobody_reads_at_once() -> None:
    class Array:
        pass

    b = Builder()
    x = b.input("x", VECTOR)
    first = b("sigmoid", x)
    b("rsqrt", first)  # nothing reads it
    second = b("sigmoid", first)
    b_last = b("sigmoid", second)
    graph = b.finish("main", {"logits": b_last})
    made: list[weakref.ref[Array]] = []
    alive: list[int] = []

    def make(_: Any) -> Array:
        alive.append(sum(ref() is not None for ref in made))
        array = Array()
        made.append(weakref.ref(array))
        return array

    interpreter = Interpreter(legalize(graph, lambda node: Accept()), {"sigmoid": make, "rsqrt": make}, {}, {})
    outputs, _ = interpreter.run({"x": Array()}, {})
    assert alive == [0, 1, 1, 1]
    assert outputs["logits"] is made[-1]()
    for _ in range(3):  # nothing is left from one run for the next
        interpreter.run({"x": Array()}, {})
    del outputs
    assert not any(ref() is not None for ref in made)
