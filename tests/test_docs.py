"""What the documents say is so: code runs, commands parse, links lead somewhere, tables are full and true."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from importlib import import_module
from importlib.resources import files
from inspect import get_annotations
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import BaseModel
from typer.main import get_command

from fusionbench import (
    Batch,
    Cohort,
    Comparison,
    FusionStrategy,
    Modality,
    Stage,
    Subject,
    load_comparison,
    load_registry,
)
from fusionbench.experiment import StageRecipe, Variant, merged, parse_setting, read_config, shipped_configs
from fusionbench.metrics import METRICS
from fusionbench.registry import HOOK_OF_KIND
from fusionbench.testing.checks import check_component
from fusionbench_cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("*/README.md"))]
NOT_RUN = "<!-- not run"
"""Before a code block: it is not run, and the rest of the comment says why."""
REQUIRED = "required"
CORE = Path(str(files("fusionbench")))
PLUGINS = Path(str(files("fusionbench_plugins")))
COMMAND_LINE = Path(str(files("fusionbench_cli")))


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    before: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(*languages: str) -> list[Block]:
    """Every block in one of these languages, of all pages."""
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: match.start()].rstrip().rpartition("\n")[2]
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2], before)


PLUGIN_MODULES = [b for b in blocks("python") if b.page.name == "plugins.md" and "@hookimpl" in b.text]
"""The blocks that are whole modules of a plugin."""


# Code


@pytest.fixture
def small_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The configuration `demo` at a size for tests."""
    small = {
        "protocol": {"folds": 2, "inner_folds": 2},
        "preprocessing": {"resize": [4, 8, 8]},
        "recipe": {"epochs": 1, "precision": "32", "device": "cpu", "stages": {"secondary": {"epochs": 1}}},
        "options": {"phantom": {"subjects": 16, "spacing": 8.0}, "rmc": {"width": 2}},
    }
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "demo.toml").write_text(tomli_w.dumps(merged(read_config("demo"), small)))
    monkeypatch.setattr("fusionbench.experiment.configs_folder", lambda: folder)


@pytest.mark.parametrize("block", blocks("python"), ids=str)
@pytest.mark.usefixtures("small_demo")
def test_python_blocks_run(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.before.startswith(NOT_RUN):
        assert re.fullmatch(rf"{NOT_RUN}: .+ -->", block.before), f"{block}: say why it is not run"
        return
    monkeypatch.chdir(tmp_path)
    code = compile("\n" * block.line + block.text, str(block.page), "exec")
    exec(code, {"__name__": "__main__"})  # noqa: S102 - the documents are ours


@pytest.mark.parametrize("block", PLUGIN_MODULES[1:], ids=str)
def test_whole_plugins_keep_their_contract(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers copy them, so they must pass `fusionbench check`; test_third_party.py tries the first, the example."""
    name = f"plugin_of_{block.page.stem}_{block.line}"
    (tmp_path / f"{name}.py").write_text(block.text)
    monkeypatch.syspath_prepend(tmp_path)
    module = vars(import_module(name))
    offered = {kind: module[hook]() for kind, hook in HOOK_OF_KIND.items() if hook in module}
    plugins = [
        component for component in load_registry().with_classes(name, **offered).components if component.plugin == name
    ]
    assert plugins
    verdicts = [verdict for plugin in plugins for verdict in check_component(plugin)]
    assert not {verdict.promise: verdict.detail for verdict in verdicts if not verdict.held}


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_toml_blocks_are_valid_configurations(block: Block) -> None:
    settings = tomllib.loads(block.text)
    if "project" in settings:  # a part of somebody's pyproject.toml
        return
    check_settings(load_comparison("demo", settings))


def check_settings(comparison: Comparison) -> None:
    """Every option that is set exists and fits."""
    for name, options in comparison.options.items():
        load_registry().named(name).resolve(options)


# Commands


def commands(block: Block) -> Iterator[list[str]]:
    """The calls of fusionbench in a block of a shell, word by word."""
    text = block.text.replace("\\\n", " ")
    lines = text.splitlines()
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        call: list[str] = []
        for word in [*words, "&&"]:
            if set(word) <= set("&|;<>()"):
                if call and call[0] == "fusionbench":
                    yield call[1:]
                call = []
            else:
                call.append(word)


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The commands that do something, by their words: ("run",), ("data", "check")."""
    inner = getattr(command, "commands", {})
    if not inner:
        yield path, command
    for name, member in inner.items():
        yield from leaves(member, (*path, name))


LEAVES = dict(leaves(get_command(app)))


def command_path(call: list[str]) -> tuple[str, ...]:
    """The words of a call that name the command."""
    return tuple(call[:2]) if tuple(call[:2]) in LEAVES else tuple(call[:1])


CALLS = [(block, call) for block in blocks("bash", "console") for call in commands(block)]


@pytest.mark.parametrize(("block", "call"), CALLS, ids=lambda value: str(value) if isinstance(value, Block) else "")
def test_commands_exist_with_their_flags_and_names(block: Block, call: list[str]) -> None:
    path = command_path(call)
    assert path in LEAVES, f"{block}: no command {' '.join(path)}"
    asked = LEAVES[path].make_context(path[-1], call[len(path) :]).params
    config = asked.get("config") or "demo"
    variants = load_comparison(config).variants if config in shipped_configs() else {}
    written = {name for module in PLUGIN_MODULES for name in re.findall(r'^    name = "(.+)"$', module.text, re.M)}
    known = {component.name for component in load_registry().components} | {"NAME", "all", *variants, *written}
    kinds = {component.kind for component in load_registry().components}
    names = [*_words(asked.get("fusion")), *_words(asked.get("baselines")), *_words(asked.get("backbone"))]
    names += [*_words(asked.get("attention")), *_words(asked.get("ranking")), *_words(asked.get("cohort"))]
    names += [asked["name"]] if "name" in asked else []
    unknown = [word for word in names if word.rpartition("=")[2] not in known]
    assert not unknown, f"{block} names {unknown}"
    assert asked.get("kind", "") in {"", *kinds}
    if config in shipped_configs():
        settings = [parse_setting(text) for text in asked.get("setting") or []]
        check_settings(load_comparison(config, *settings))


def _words(text: str | None) -> list[str]:
    return [word for word in (text or "").split(",") if word]


def test_the_pages_show_commands() -> None:
    assert set(LEAVES) <= {command_path(call) for _, call in CALLS}


def test_every_flag_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    flags = {flag for command in LEAVES.values() for p in command.params for flag in p.opts if "-" in flag}
    assert not [flag for flag in sorted(flags) if f"`{flag}" not in text]


# Links and names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", prose)]
    relative = [link for link in links if link and "://" not in link]
    assert not [link for link in relative if not (page.parent / link).exists()]


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if page.stem != "index" and page.name not in index]


def test_every_built_in_component_is_documented() -> None:
    pages = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    names = {c.name for c in load_registry().components if c.distribution == "fusionbench"}
    readme = (ROOT / "README.md").read_text()
    assert not [name for name in sorted(names) if f"`{name}`" not in readme and f"`{name}:" not in readme]
    assert not [name for name in sorted(names) if not any(f"`{name}`" in page for page in pages)]


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    modules = [path for package in (CORE, PLUGINS, COMMAND_LINE) for path in package.rglob("*.py")]
    assert not [path.name for path in modules if path.stem != "__init__" and path.name not in text]


# Tables


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first column is called so."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    table = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        table.append([cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return table


def settings() -> list[list[str]]:
    """Each setting there is: its name, its default, and what each shipped configuration sets it to.

    Those of the paper say every setting themselves, with its source (test_paper_configs.py).
    """
    shipped = [dict(_flat(read_config(n))) for n in sorted(shipped_configs()) if not n.startswith("paper-")]
    return [[f"`{name}`", default, *(_set_to(name, config) for config in shipped)] for name, default in _fields()]


def _fields(model: type[BaseModel] = Comparison, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and default of every setting; what the user names is in capitals."""
    for name, info in model.model_fields.items():
        path, kind = f"{prefix}{name}", info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _fields(kind, f"{path}.")
        elif path == "recipe.stages":
            yield from ((f"{path}.STAGE.{own}", "the recipe's") for own in StageRecipe.model_fields)
        elif path == "variants":
            yield from ((f"{path}.NAME.{own}", _variant_default(own)) for own in Variant.model_fields)
        elif path == "backbone":
            yield f"{path}.KIND", REQUIRED
        elif path == "options":
            yield f"{path}.COMPONENT.OPTION", "the component's"
        else:
            yield path, REQUIRED if info.is_required() else _told(info.default)


def _variant_default(field: str) -> str:
    return REQUIRED if Variant.model_fields[field].is_required() else "the comparison's"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _set_to(name: str, config: Mapping[str, Any]) -> str:
    """What a configuration sets it to: `120`, or `phantom.subjects 120` where the user names it."""
    pattern = re.sub(r"\b[A-Z]+\b", r"([^.]+)", name.replace(".", r"\."))
    found = {key: match for key in config if (match := re.fullmatch(pattern, key))}
    return ", ".join(f"{'.'.join(match.groups())} {_told(config[key])}".strip() for key, match in found.items())


def _told(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_told, value))}]"
    if isinstance(value, float):
        return f"{value:g}"
    return {None: "none", "": "empty"}.get(value, str(value))


def test_the_table_of_settings_is_complete_and_true() -> None:
    """Run this file as a program to see the rows as they should be."""
    documented = rows("configuration.md", "setting")
    assert [row[:-1] for row in documented] == settings()
    assert all(row[-1] for row in documented)


def test_the_table_of_options_of_guidance_is_that_of_describe() -> None:
    options = load_registry().get("fusion", "guidance").options
    documented = rows("guidance.md", "option")
    assert [row[:2] for row in documented] == [[f"`{o.name}`", f"`{o.default}`"] for o in options]
    for option, row in zip(options, documented, strict=True):
        assert all(f"`{value}`" in row[2] for value in option.type.__args__)


def test_the_table_of_attributes_of_a_strategy_is_complete_and_true() -> None:
    declared = [name for name in get_annotations(FusionStrategy) if name != "name"]
    documented = rows("plugins.md", "attribute")
    assert [row[0] for row in documented] == [f"`{name}`" for name in declared]
    assert [ast.literal_eval(row[1].strip("`")) for row in documented] == [getattr(FusionStrategy, n) for n in declared]


@pytest.mark.parametrize("cls", [Stage, Batch])
def test_the_tables_of_stage_and_batch_have_every_field(cls: type) -> None:
    documented = rows("plugins.md", f"field of `{cls.__name__}`")
    assert [row[0] for row in documented] == [f"`{field.name}`" for field in fields(cls)]


def test_the_table_of_what_a_reader_returns_has_every_field() -> None:
    documented = [(row[1], row[2]) for row in rows("plugins.md", "class")]
    made = [field for cls in (Cohort, Modality, Subject) for field in fields(cls)]
    assert documented == [(f"`{field.name}`", _default(field)) for field in made]


def _default(field: Field[Any]) -> str:
    if field.default_factory is not MISSING:
        return f"`{field.default_factory()!r}`"
    return "" if field.default is MISSING else f"`{field.default!r}`".replace("'", '"')


def test_the_table_of_metrics_is_complete_and_true() -> None:
    better = {True: "higher", False: "lower"}
    expected = [[f"`{m.name}`", better[m.higher_is_better]] for m in METRICS.values()]
    documented = rows("evaluation.md", "metric")
    assert [row[:2] for row in documented] == expected
    assert [row[2] == "probabilities" for row in documented] == [m.needs_probabilities for m in METRICS.values()]


# Benchmarks


def quoted_benchmarks() -> list[tuple[str, list[str]]]:
    """What is called in the documents and in the benchmarks' own: `benchmarks`, `benchmarks.NAME` or a file; words."""
    texts = [path.read_text(encoding="utf-8") for path in (*PAGES, *(ROOT / "benchmarks").rglob("*.py"))]
    calls = [
        call for text in texts for call in re.findall(r"\bpython (?:-m )?(benchmarks[\w./]*)((?: [a-z_]+)*)", text)
    ]
    return [(module, words.split()) for module, words in calls]


def test_a_quoted_benchmark_is_a_case_or_a_program() -> None:
    from benchmarks.__main__ import CASES, LONG

    called = quoted_benchmarks()
    assert len(called) > 20
    assert not [words for module, words in called if module == "benchmarks" and not {*words} <= {*CASES, *LONG}]
    programs = {module for module, _ in called if module != "benchmarks"}
    files = {name: ROOT / f"{name.replace('.', '/')}.py" for name in programs}
    assert not [name for name, path in files.items() if not path.is_file() or "__main__" not in path.read_text()]


# The picture


def test_the_picture_of_a_terminal_shows_the_text_and_loads_nothing() -> None:
    drawn = subprocess.run(
        [sys.executable, ROOT / "docs" / "terminal.py"],
        input="Leaderboard\n[bold] 0.5 ± 0.1 <b>\n", capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
    ).stdout  # fmt: skip
    assert "Leaderboard" in drawn
    assert "[bold]" in drawn
    assert "fusionbench&#160;run" in drawn
    assert loads(drawn) == []


def test_pictures_load_nothing() -> None:
    assert not {path.name: loads(path.read_text()) for path in (ROOT / "docs").glob("*.svg") if loads(path.read_text())}


def loads(svg: str) -> list[str]:
    """The addresses in a picture, but for the name of its own format."""
    return [url for url in re.findall(r"\w+://[^\s\"')]+|url\((?!#)", svg) if url != "http://www.w3.org/2000/svg"]


# What ARCHITECTURE.md says of the code and no other test holds


def trees(*packages: Path) -> dict[str, ast.Module]:
    """Path from the package on -> syntax tree, of every module."""
    paths = [(package.parent, path) for package in packages for path in sorted(package.rglob("*.py"))]
    return {path.relative_to(above).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for above, path in paths}


def called(tree: ast.Module) -> set[str]:
    """The names of what a module calls: `print`, `step`, `write_text`."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {f.id if isinstance(f, ast.Name) else f.attr for f in functions if isinstance(f, ast.Name | ast.Attribute)}


def imported(tree: ast.Module) -> set[str]:
    """The modules that a module imports, wherever it does."""
    nodes = list(ast.walk(tree))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_the_core_never_prints() -> None:
    speaking = {name for name, tree in trees(CORE).items() if {"print", "pprint"} & called(tree)}
    screens = {
        name for name, tree in trees(CORE).items() if {"rich", "typer"} & {m.split(".")[0] for m in imported(tree)}
    }
    assert speaking == screens == set()


def test_the_command_line_imports_nothing_that_computes() -> None:
    roots = {module.split(".")[0] for tree in trees(COMMAND_LINE).values() for module in imported(tree)}
    assert not roots & {"torch", "numpy", "scipy", "sklearn", "pandas", "statistics", "fusionbench_plugins"}


def test_only_the_training_loop_steps_an_optimiser() -> None:
    stepping = {name for name, tree in trees(CORE, PLUGINS).items() if {"zero_grad", "Adam"} & called(tree)}
    assert stepping == {"fusionbench/training.py", "fusionbench/testing/trials.py"}


def test_who_writes_files() -> None:
    writing = {"write_text", "write_bytes", "atomic_file", "atomic_folder", "save_file", "mkdir"}
    writers = {name for name, tree in trees(CORE).items() if writing & called(tree)}
    assert writers == {
        f"fusionbench/{name}.py" for name in ("atomic", "store", "runs", "imaging/imagecache", "features")
    }


def test_no_core_module_names_a_component() -> None:
    ordinary = {"none", "table", "fixed"}  # also a class weight, a kind of modality, a word
    names = {component.name for component in load_registry().components} - ordinary
    for name, tree in trees(CORE).items():
        words = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not names & words, name


def test_plugins_import_public_names_only() -> None:
    ours = {m for tree in trees(PLUGINS).values() for m in imported(tree) if m.startswith("fusionbench")}
    assert not {module for module in ours if module != "fusionbench" and not module.startswith("fusionbench_plugins.")}


if __name__ == "__main__":
    print("\n".join(f"| {' | '.join(row)} |" for row in settings()))
