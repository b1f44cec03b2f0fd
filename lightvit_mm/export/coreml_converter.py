"""Convert a graph to a Core ML package. Needs coremltools, not lightvit_mm.

python coreml_converter.py GRAPH.pt2 METADATA.json OUT.mlpackage
"""

import json
import sys
from pathlib import Path


def main(graph: str, metadata: str, out: str) -> None:
    """Convert, save, and read the package again."""
    import coremltools as ct
    import torch

    text = Path(metadata).read_text()
    described = json.loads(text)
    program = torch.export.load(graph)
    for node in program.graph.find_nodes(
        op='call_function', target=torch.ops.aten.alias.default
    ):  # slices over whole axes, which the converter does not know
        node.replace_all_uses_with(node.args[0])
        program.graph.erase_node(node)
    detector = 'choice' in described
    names = [f'raw_{name}' if detector else name for name in described['outputs']]
    model = ct.convert(
        program,
        inputs=[
            ct.ImageType(
                name='image', shape=(1, 3, *described['size']), color_layout=ct.colorlayout.BGR
            )
        ],
        outputs=[ct.TensorType(name=name) for name in names],
        minimum_deployment_target=ct.target.iOS16,
        compute_precision=ct.precision[described['precision'].replace('fp', 'FLOAT')],
        skip_model_load=True,
    )
    if detector:
        model = with_nms(model, described)
    model.short_description = f'{described.get("config", "model")}, exported by lightvit_mm'
    model.user_defined_metadata['lightvit_mm'] = text
    model.save(out)
    made = ct.models.MLModel(out, skip_model_load=True).get_spec().description.output
    print('outputs', ', '.join(output.name for output in made))


def with_nms(model, described):  # type: ignore[no-untyped-def]
    """A pipeline of a model and Apple's NMS, whose thresholds are optional inputs."""
    import coremltools as ct

    spec, rule, outputs = model.get_spec(), described['choice'], described['outputs']
    thresholds = {'iou': rule['iou_threshold'], 'confidence': rule['score_thr']}
    last = ct.proto.Model_pb2.Model()
    last.specificationVersion = spec.specificationVersion
    stage = last.nonMaximumSuppression
    for name, given in zip(outputs, spec.description.output, strict=True):
        last.description.input.add().CopyFrom(given)
        made = last.description.output.add()
        made.CopyFrom(given)
        made.name = name
        array = made.type.multiArrayType
        width = array.shape[1]
        del array.shape[:]
        for least, most in ((0, -1), (width, width)):
            array.shapeRange.sizeRanges.add(lowerBound=least, upperBound=most)
        setattr(stage, f'{name}InputFeatureName', given.name)
        setattr(stage, f'{name}OutputFeatureName', name)
    for name, value in thresholds.items():
        given = last.description.input.add(name=f'{name}Threshold')
        given.shortDescription = f'instead of {value}'
        given.type.doubleType.SetInParent()
        given.type.isOptional = True
        setattr(stage, f'{name}Threshold', value)
        setattr(stage, f'{name}ThresholdInputFeatureName', given.name)
    stage.pickTop.perClass = not rule['class_agnostic']
    stage.stringClassLabels.vector.extend(described['classes'])

    whole = ct.proto.Model_pb2.Model()
    whole.specificationVersion = spec.specificationVersion
    whole.description.input.extend([*spec.description.input, *last.description.input[2:]])
    whole.description.output.extend(last.description.output)
    whole.pipeline.models.extend([spec, last])
    whole.pipeline.names.extend(['network', 'nms'])
    return ct.models.MLModel(whole, weights_dir=model.weights_dir, skip_model_load=True)


if __name__ == '__main__':
    main(*sys.argv[1:])
