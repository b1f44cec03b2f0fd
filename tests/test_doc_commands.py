"""Commands of README and docs are such as the tools take; what they name exists."""

import argparse
import ast
import importlib.util
import re
import runpy
import sys

import pytest
from helpers.doc_pages import PAGES, blocks, commands
from helpers.repository import REPOSITORY

from lightvit_mm.__main__ import COMMANDS, OTHERS

# What is not ours is not looked into.
FOREIGN = {'pip', 'sbatch', 'git', 'source', 'tensorboard', 'trtexec'}
CASES = [
    pytest.param(words, id=f'{page.name}: {" ".join(words)[:70]}')
    for page in PAGES
    for words in commands(page)
]


class Parsed(BaseException):
    """The arguments were read, and nothing has been done."""


@pytest.fixture
def only_parsing(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser, *arguments):
        parse(parser, *arguments)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_and_stop)
    monkeypatch.chdir(REPOSITORY)


def assert_is_taken(script, arguments, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [script, *arguments])
    with pytest.raises(Parsed):
        runpy.run_path(script, run_name='__main__')


@pytest.mark.parametrize('words', CASES)
def test_commands(words, only_parsing, monkeypatch):
    # A synopsis has its options in brackets; variables may come before a program.
    words = [word.strip('[]') for word in words if word != '...]']
    words = words[next(i for i, word in enumerate(words) if '=' not in word) :]
    for word in words:
        if word.startswith('configs/') and '<' not in word:
            assert (REPOSITORY / word).is_file(), word
    program, *rest = words
    if program in FOREIGN:
        return
    if program == 'torchrun':
        program, rest = 'lightvit-mm', rest[rest.index('lightvit_mm') + 1 :]
    if program == 'lightvit-mm':
        command, *arguments = rest
        if command in COMMANDS:
            assert_is_taken(f'tools/{COMMANDS[command]}', arguments, monkeypatch)
        else:
            assert command in {'--help', *OTHERS}
        return
    if rest[0] == '-c':
        exec(rest[1], {})
        return
    if rest[0] == '-m':
        assert importlib.util.find_spec(rest[1]), rest[1]
        return
    script, *arguments = rest
    assert (REPOSITORY / script).is_file(), script
    source = (REPOSITORY / script).read_text()
    if program == 'python' and '.parse_args(' in source:
        assert_is_taken(script, arguments, monkeypatch)
    elif script == 'tools/dist_train.sh':
        assert_is_taken('tools/train.py', [arguments[0], *arguments[2:]], monkeypatch)
    elif script == 'tools/slurm_train.sh':
        assert_is_taken('tools/train.py', [arguments[2], *arguments[4:]], monkeypatch)
    else:
        for option in (word for word in arguments if word.startswith('--')):
            assert option in source, option


def test_there_are_commands():
    assert len(CASES) > 40


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_python_and_links(page):
    for code in blocks(page, 'python'):
        ast.parse(code)
    for target in re.findall(r'\]\((?!http)([^)#]+)', page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_named_files_exist(page):
    spans = re.findall(r'`(?:(?:python|bash) )?([^`\s]+)', page.read_text())
    for span in spans:
        name, _, function = span.partition('::')
        if re.fullmatch(r'(\w+/)*test_\w+\.py', name):
            folder = REPOSITORY if (REPOSITORY / name).is_file() else REPOSITORY / 'tests'
            assert (folder / name).is_file(), span
            assert f'def {function}(' in (folder / name).read_text() or not function, span
        elif re.match(r'(benchmarks|configs|docs|lightvit_mm|tests|tools)/', name):
            assert re.search('<|my_', name) or any(REPOSITORY.glob(name)), span
