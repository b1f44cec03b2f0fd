"""Convert a graph to LiteRT, or a LiteRT file to 8 bits. Needs litert-torch, not lightvit_mm.

python litert_converter.py convert GRAPH.pt2 OUT.tflite
python litert_converter.py quantize layers|everything FLOAT.tflite IMAGES.npy OUT.tflite
"""

import re
import sys
from pathlib import Path

LAYERS = ('CONV_2D', 'DEPTHWISE_CONV_2D', 'FULLY_CONNECTED')


def convert(graph: str, out: str) -> None:
    """Convert a graph of torch.export."""
    import litert_torch
    import torch

    program = torch.export.load(graph)
    module = program.module()
    # Modules made of a graph cannot be set to evaluation mode, and in training mode the converter
    # would warn.
    module.training = False
    litert_torch.convert(module, program.example_inputs[0]).export(out)


def quantize(kind: str, file: str, images: str, out: str) -> None:
    """Compute layers with weights, or everything, in 8 bits.

    The ranges are those that (n, H, W, 3) images give.

    The last layers before the outputs stay in float: with 256 values for scores and for offsets of
    boxes, RetinaNet lost 0.03 of its AP, and without it 0.005.
    """
    import numpy as np
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.qtyping import TFLOperationName

    made = quantizer.Quantizer(Path(file))
    every = TFLOperationName.ALL_SUPPORTED
    for name in LAYERS if kind == 'layers' else (every.name,):
        made.add_static_config('.*', TFLOperationName[name], 8, 8)
    # Otherwise the outputs would be integers without their scale.
    made.update_quantization_recipe('.*', TFLOperationName.OUTPUT, algorithm_key='no_quantize')
    for name in the_end(Path(file).read_bytes()):
        # The quantiser puts the names of all outputs of an operation together.
        made.update_quantization_recipe(
            f'^{re.escape(name)};?$', every, algorithm_key='no_quantize'
        )
    inputs = [{'args_0': image[None]} for image in np.load(images)]
    ranges = made.calibrate({'serving_default': inputs}, num_threads=1)
    made.quantize(ranges, serialize_to_path=out)


def the_end(content: bytes) -> list[str]:
    """Names of what the last layers with weights, and all operations after them, make."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    layers = {getattr(schema.BuiltinOperator, layer) for layer in LAYERS}
    graph = model.subgraphs[0]
    makers = {int(made): op for op in graph.operators for made in op.outputs}
    names, seen, waiting = [], set(), [int(made) for made in graph.outputs]
    while waiting:
        tensor = waiting.pop()
        if tensor in seen or tensor not in makers:
            continue
        seen.add(tensor)
        names.append(graph.tensors[tensor].name.decode())
        if model.operatorCodes[makers[tensor].opcodeIndex].builtinCode not in layers:
            waiting += map(int, makers[tensor].inputs)
    return names


if __name__ == '__main__':
    command, *arguments = sys.argv[1:]
    if command == 'convert':
        convert(*arguments)
    else:
        quantize(*arguments)
