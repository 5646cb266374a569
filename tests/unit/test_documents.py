"""The documents are not stale: commands and options exist, Python compiles, links lead somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import mvvfs.cli.app
import pagestore.service.cli
from tests.documents import ALL, DOCS, README, ROOT, blocks, prose, shown_lines

PROGRAMS: dict[str, click.Group] = {"mvctl": mvvfs.cli.app.app, "pagestore": pagestore.service.cli.app}

by_page = pytest.mark.parametrize("page", ALL, ids=lambda page: str(page.relative_to(ROOT)))


def leaves(group: click.Group, name: str) -> Iterator[tuple[str, click.Command]]:
    for word, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def options_of(command: click.Command) -> set[str]:
    return {option for param in command.params for option in param.opts + param.secondary_opts}


def unknown(words: list[str]) -> str | None:
    """What is wrong with a command as a page shows it; None: nothing."""
    command: click.Command = PROGRAMS[words[0]]
    options = {"-h", "--help"} | options_of(command)
    for word in words[1:]:
        if word in ("|", "&&", ">", "#"):
            break
        if isinstance(command, click.Group) and re.fullmatch(r"[a-z]+", word):
            if word not in command.commands:
                return f"no command {word!r}"
            command = command.commands[word]
            options |= options_of(command)
        elif re.match(r"--?[a-z]", word) and word.partition("=")[0].rstrip(".,:;)") not in options | {
            "--help",
            "-h",
        }:
            return f"no option {word!r}"
    return None


@by_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for line in shown_lines(page):
        match = re.match(r"\s*(?:\$ )?(?:[A-Z_]+=\S+ )*((?:mvctl|pagestore) .*)", line)
        if match is None:
            continue
        try:
            words = shlex.split(match[1].replace("[", " ").replace("]", " "))
        except ValueError:  # an apostrophe in the words behind a command
            words = match[1].split()
        assert unknown(words) is None, line


def test_the_list_of_commands_is_whole() -> None:
    first = next(blocks(DOCS / "mvctl.md")).text
    shown = set(re.findall(r"^(mvctl(?: cache)? [a-z]+)", first, re.MULTILINE))
    assert shown == {name for name, _ in leaves(PROGRAMS["mvctl"], "mvctl")}


def test_what_mvctl_says_of_its_commands_fits_a_line() -> None:
    """Where the help lists them, on a terminal of 80 columns."""
    group = PROGRAMS["mvctl"]
    with click.Context(group, info_name="mvctl", terminal_width=80) as context:
        assert "..." not in group.get_help(context).partition("Commands:")[2]


@by_page
def test_python_compiles(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            compile(block.text, f"{page.name}:{block.line}", "exec")


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    found = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@by_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target


def test_there_are_documents() -> None:
    assert README in ALL
    assert len(ALL) > 20


def test_what_docker_says_twice_is_the_same() -> None:
    folder = ROOT / "docker"
    compose = (folder / "foundationdb.compose.yaml").read_text()
    cluster = (folder / "fdb.cluster").read_text().strip()
    assert re.findall(r"FDB_CLUSTER_FILE_CONTENTS: (\S+)", compose) == [cluster]
    assert re.findall(r"ipv4_address: (\S+)", compose) == [cluster.partition("@")[2].partition(":")[0]]
    version = re.findall(r"FDB_VERSION=(\S+)", (folder / "foundationdb.Dockerfile").read_text())
    assert set(re.findall(r"image: foundationdb/foundationdb:(\S+)", compose)) == set(version)


@pytest.mark.parametrize("name", ["compose.yaml", "foundationdb.compose.yaml"])
def test_what_compose_mounts_is_there_or_made_at_its_head(name: str) -> None:
    folder = ROOT / "docker"
    mounted = re.findall(r"^ *(?:- |file: )\./([^: ]+)", (folder / name).read_text(), re.MULTILINE)
    assert mounted
    head = (folder / "compose.yaml").read_text().partition("services:")[0]
    for path in mounted:
        assert (folder / path).exists() or f"docker/{path}" in head, path
