"""The command ``lightvit-mm``, also as ``python -m lightvit_mm``: the tools, from any folder."""

from __future__ import annotations

import argparse
import ast
import difflib
import fnmatch
import importlib
import importlib.util
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import lightvit_mm
from lightvit_mm import doctor
from lightvit_mm.carried import CONFIGS, TOOLS, config_names
from lightvit_mm.errors import UserError, user_errors

NAME = 'lightvit-mm'
# The tool that each command runs, in the order in which they are needed.
COMMANDS = {
    'make-shapes': 'make_shapes.py',
    'check-data': 'check_data.py',
    'browse-data': 'browse_data.py',
    'split-coco': 'split_coco.py',
    'convert-masks': 'convert_masks.py',
    'train': 'train.py',
    'test': 'test.py',
    'report': 'report.py',
    'predict': 'predict.py',
    'export': 'export.py',
    'benchmark': 'benchmark.py',
    'gpu-check': 'gpu_check.py',
    'reproduce': 'reproduce.py',
}
EPILOG = f"""CONFIG is a file, or the name of a config that comes with the package:
  {NAME} make-shapes data/shapes
  {NAME} train retinanet_edgevit_xxs_shapes
  {NAME} COMMAND --help

Several processes:
  torchrun --nproc_per_node=8 -m lightvit_mm train CONFIG --launcher pytorch
"""
# compgen -W splits at white space; names of configs have none.
COMPLETION = """_lightvit_mm() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} configs=({configs}/*.py)
  configs=("${{configs[@]##*/}}")
  COMPREPLY=()
  if [ "$COMP_CWORD" = 1 ]; then
    COMPREPLY=($(compgen -W '{commands}' -- "$word"))
  elif [[ $word != -* ]]; then
    COMPREPLY=($(compgen -W "${{configs[*]%.py}}" -- "$word"))
  fi
}}
complete -o bashdefault -o default -F _lightvit_mm {name}
"""


def list_configs(arguments: Sequence[str]) -> int:
    """List the configs that come with the package"""
    parser = argparse.ArgumentParser(
        prog=f'{NAME} list',
        description='List the configs that come with the package: million parameters, and GMACs '
        'for one image of that height and width (Mask R-CNN: without what runs per proposal).',
    )
    parser.add_argument(
        'patterns', nargs='*', metavar='PATTERN', help="part of a name, or 'retinanet_*_coco'"
    )
    patterns = parser.parse_args(arguments).patterns
    names = [
        name
        for name in config_names()
        if not patterns or any(fnmatch.fnmatch(name, p) or p in name for p in patterns)
    ]
    if not names:
        raise UserError(f'no config is called like {" or ".join(patterns)}; {NAME} list shows all')
    import yaml  # late, since only this command needs more than Python

    models = {
        m['Name']: m for m in yaml.safe_load((CONFIGS / 'metafile.yml').read_text())['Models']
    }
    print(f'{"config":<46} {"M":>7} {"GMACs":>7}  input     data')
    for name in names:
        print(f'{name:<46} {_figures(models.get(name))}')
    print(f'{len(names)} configs in {CONFIGS}')
    return 0


def _figures(model: dict[str, Any] | None) -> str:
    if model is None:
        return f'{"":15}  128x128   the embedded data set'
    measured = model['Metadata']
    size = 'x'.join(map(str, measured['Input']))
    return (
        f'{measured["Parameters"] / 1e6:7.2f} {measured["GMACs"]:7.1f}  {size:<9} '
        f'{measured["Training Data"]}'
    )


def ask_doctor(arguments: Sequence[str]) -> int:
    """Find what is wrong with the environment, and how to fix it"""
    sys.argv = [f'{NAME} doctor', *arguments]
    return doctor.main()


def print_completion(arguments: Sequence[str]) -> int:
    """Print a script that completes commands and configs: source <(lightvit-mm completion bash)"""
    if list(arguments) != ['bash']:
        raise UserError(f'{NAME} completion bash: bash is the only shell')
    folder = shlex.quote(str(CONFIGS))
    print(COMPLETION.format(configs=folder, commands=' '.join([*COMMANDS, *OTHERS]), name=NAME))
    return 0


OTHERS: dict[str, Callable[[Sequence[str]], int]] = {
    'list': list_configs,
    'doctor': ask_doctor,
    'completion': print_completion,
}


def page() -> str:
    """All commands on one page; what a tool does is the first line of its docstring."""
    lines = [
        f'usage: {NAME} COMMAND [ARGUMENT ...]',
        '',
        lightvit_mm.__doc__.partition('\n')[0],
        '',
    ]
    for command, file in COMMANDS.items():
        tree = ast.parse((TOOLS / file).read_text(encoding='utf-8'))
        what = (ast.get_docstring(tree) or '').partition('\n')[0].partition(': python')[0]
        lines.append(f'  {command:<12} {what.rstrip(".")}')
    lines += [f'  {command:<12} {function.__doc__}' for command, function in OTHERS.items()]
    return '\n'.join([*lines, '', EPILOG])


def run_tool(command: str, arguments: Sequence[str]) -> int:
    """Import a tool and run its main function."""
    sys.argv = [f'{NAME} {command}', *arguments]
    sys.path.insert(0, str(TOOLS))
    importlib.import_module('_stack')  # as in a tool, before torch is imported
    # The package left its contents out while sys.argv had the name of this command.
    importlib.reload(lightvit_mm)
    # A tool's own name may be that of another module: Python has one called test.
    spec = importlib.util.spec_from_file_location(f'{NAME} {command}', TOOLS / COMMANDS[command])
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool.main() or 0


def main() -> int:
    """Run the command that the arguments name; returns its exit status."""
    command, *arguments = sys.argv[1:] or ['--help']
    with user_errors():
        if command in ('-h', '--help', 'help'):
            print(page(), end='')
        elif command == '--version':
            print(f'lightvit_mm {lightvit_mm.__version__}')
        elif command in COMMANDS:
            return run_tool(command, arguments)
        elif command in OTHERS:
            return OTHERS[command](arguments)
        else:
            near = difflib.get_close_matches(command, [*COMMANDS, *OTHERS])
            hint = f'did you mean {" or ".join(near)}? ' if near else ''
            raise UserError(f'there is no command {command}; {hint}{NAME} --help lists them')
    return 0


if __name__ == '__main__':
    sys.exit(main())
