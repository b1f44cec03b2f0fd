"""Convert a graph to ExecuTorch with XNNPACK. Needs executorch, not lightvit_mm.

python executorch_converter.py GRAPH.pt2 METADATA.json OUT.pte
"""

import sys
from pathlib import Path


def main(graph: str, metadata: str, out: str) -> None:
    """Convert, and print the number of parts that XNNPACK runs."""
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(
        torch.export.load(graph),
        partitioner=[XnnpackPartitioner()],
        constant_methods={'lightvit_mm': Path(metadata).read_text()},
    )
    parts = [n for n in edge.exported_program().graph.nodes if 'call_delegate' in str(n.target)]
    Path(out).write_bytes(edge.to_executorch().buffer)
    print(len(parts), 'parts for XNNPACK')


if __name__ == '__main__':
    main(*sys.argv[1:])
