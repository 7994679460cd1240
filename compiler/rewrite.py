"""Exported graph -> the same graph on packed weights: linears and embeddings become the engine's operators.

Linears that read the same input (queries, keys and values; gate and up) become one, which quantises its input once
and needs one round of threads. Knows nothing of how weights are packed or compiled.
"""

import operator
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from compiler import ops
from compiler.ops import Kind

aten = torch.ops.aten


class PackedWeights:
    """Packs each group of weight matrices once, however many nodes use it."""

    def __init__(self, pack: Callable[[list[Tensor], Kind], tuple[Tensor, Kind]]) -> None:
        self._pack = pack
        self._packed: dict[tuple[object, ...], tuple[str, Tensor, Kind]] = {}
        self._biases: dict[tuple[int | None, ...], tuple[str, Tensor]] = {}

    def get(self, matrices: list[Tensor], kind: Kind) -> tuple[str, Tensor, Kind]:
        """The name and packed bytes of `matrices`, each `[N, K]` with the same K, stacked on their rows, and the kind
        that they are packed to: `kind`, unless they have been quantised to another one already.
        """
        key = (*((m.data_ptr(), tuple(m.shape), m.stride()) for m in matrices), kind)
        if key not in self._packed:
            self._packed[key] = (f"packed_{len(self._packed)}", *self._pack(matrices, kind))
        return self._packed[key]

    def bias(self, parts: list[Tensor | None], rows: list[int]) -> tuple[str, Tensor] | None:
        """The name and values `[sum of rows]` of the biases, or None when no part has one."""
        if all(part is None for part in parts):
            return None
        key = tuple(part.data_ptr() if part is not None else None for part in parts)
        if key not in self._biases:
            filled = [p if p is not None else torch.zeros(n) for p, n in zip(parts, rows, strict=True)]
            self._biases[key] = (f"bias_{len(self._biases)}", torch.cat(filled).float())
        return self._biases[key]


def _constant(module: GraphModule, node: object) -> Tensor | None:
    """The parameter or buffer a node reads, or None if it is computed."""
    if not (isinstance(node, Node) and node.op == "get_attr"):
        return None
    value = operator.attrgetter(str(node.target))(module)
    return value.detach() if isinstance(value, Tensor) else None


def _attribute(module: GraphModule, name: str, value: Tensor) -> Node:
    """A node that reads the buffer `name`, which is added where it is missing."""
    if not hasattr(module, name):
        module.register_buffer(name, value)
    return module.graph.get_attr(name)


def _linears(module: GraphModule) -> dict[Node, list[tuple[Node, Tensor, Tensor | None]]]:
    """input node -> (linear node, weight [N, K], bias) of all linears that read it and have constant weights."""
    found = defaultdict(list)
    for node in module.graph.nodes:
        if node.target == aten.linear.default:
            source, weight, bias = node.args[0], _constant(module, node.args[1]), node.args[2:] and node.args[2]
        elif node.target == aten.addmm.default:  # GPT-2's Conv1D: bias + x @ weight [K, N]
            source, weight, bias = node.args[1], _constant(module, node.args[2]), node.args[0]
            weight = weight.t() if weight is not None else None
        else:
            continue
        values = _constant(module, bias) if bias else None
        if weight is not None and weight.dim() == 2 and (values is not None) == bool(bias):
            found[source].append((node, weight, values))
    return found


def rewrite(module: GraphModule, weights: PackedWeights, linear: Kind, table: Kind) -> None:
    """Replace linears by packed ones of `linear` kind; those whose matrix is also an embedding, and embeddings of the
    vocabulary, by `table` kind. What `weights` has in another kind has that one. In place.
    """
    graph = module.graph
    embeddings = [
        n for n in graph.nodes if n.target == aten.embedding.default and _constant(module, n.args[0]) is not None
    ]
    vocabulary = max((n.args[0].meta["val"].shape[0] for n in embeddings), default=0)
    for source, group in _linears(module).items():
        # The head alone is as wide as the vocabulary.
        kind = table if group[0][1].shape[0] >= vocabulary > 0 else linear
        sizes = [weight.shape[0] for _, weight, _ in group]
        name, packed, kind = weights.get([weight for _, weight, _ in group], kind)
        bias = weights.bias([b for _, _, b in group], sizes)
        with graph.inserting_after(source if source.op != "placeholder" else group[0][0].prev):
            weight_node = _attribute(module, name, packed)
        with graph.inserting_after(weight_node):
            bias_node = _attribute(module, *bias) if bias else None
        with graph.inserting_after(bias_node or weight_node):
            joined = graph.call_function(ops.packed_linear, (source, weight_node, bias_node, sum(sizes), int(kind)))
        after, begin = joined, 0
        for (node, _, _), size in zip(group, sizes, strict=True):
            with graph.inserting_after(after):
                part = joined
                if len(group) > 1:
                    part = graph.call_function(aten.slice.Tensor, (joined, -1, begin, begin + size))
                    after = part
            node.replace_all_uses_with(part)
            graph.erase_node(node)
            begin += size
    for node in embeddings:
        matrix = _constant(module, node.args[0])
        assert matrix is not None
        if matrix.shape[0] < vocabulary:
            continue  # positions: small, and read by the generated code itself
        name, packed, kind = weights.get([matrix], table)
        with graph.inserting_before(node):
            weight_node = _attribute(module, name, packed)
            rows = graph.call_function(ops.packed_embedding, (node.args[1], weight_node, matrix.shape[1], int(kind)))
        node.replace_all_uses_with(rows)
        graph.erase_node(node)
    graph.eliminate_dead_code()
    module.recompile()
