"""Convert a traced graph to ncnn and run it once. Needs pnnx and ncnn, not lightvit_mm.

python ncnn_converter.py GRAPH.pt HEIGHT WIDTH OUT.ncnn.param OUT.ncnn.bin
"""

import subprocess
import sys


def main(graph: str, height: str, width: str, param: str, weights: str) -> None:
    """Convert, load and run."""
    import ncnn
    import numpy as np
    import pnnx

    shape = f'inputshape=[1,3,{height},{width}]'
    files = [f'ncnnparam={param}', f'ncnnbin={weights}']
    subprocess.run([pnnx.EXEC_PATH, graph, shape, 'fp16=0', *files], check=True)
    # pnnx ends with status 0 after writing files that do not load, or that end the process that
    # runs them.
    net = ncnn.Net()
    if net.load_param(param) or net.load_model(weights):
        sys.exit('pnnx made a file that ncnn cannot load')
    image = np.zeros((3, int(height), int(width)), 'float32')
    extractor = net.create_extractor()
    extractor.input('in0', ncnn.Mat(image))
    for name in net.output_names():
        if extractor.extract(name)[0]:
            sys.exit('pnnx made a file that ncnn cannot run')


if __name__ == '__main__':
    main(*sys.argv[1:])
