from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import fusionnode.cli as cli
from fusionnode.core.types import LinkRecord
from fusionnode.record.entries import Meta, Tick
from fusionnode.record.journal import Journal

CONFIG = """
[node]
id = "n1"
[site.s]
lat_deg = 10.0
lon_deg = 20.0
[sensor.r]
id = 1
kind = "radar"
site = "s"
[link.line]
kind = "serial"
device = "/dev/none"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.toml"
    path.write_text(CONFIG)
    return path


def complaint(capsys: pytest.CaptureFixture[str], argv: list[str], code: int = 2) -> str:
    """The one line that a command says before it ends with ``code``."""
    assert cli.main(argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("fusionnode: ")
    return captured.err.removeprefix("fusionnode: ").strip()


def test_check_says_what_a_good_configuration_holds(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--config", str(config)]) == 0
    assert "link     line: /dev/none, 115200 baud" in capsys.readouterr().out
    assert cli.main(["check", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sensors"] == {"r": "radar, azel, id 1, at s"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("lat_deg = 10.0", "lat = 10.0"), "node.toml: site.s.lat_deg: Field required"),
        (('id = "n1"', 'id = "n 1"'), "node.toml: node.id: "),
        (
            ('device = "/dev/none"', 'device = "/dev/none"\ncodec = "nmea"'),
            "link.line.codec: expected one of frames",
        ),
        (("[node]", '[catalogue]\nfiles = ["none.tle"]\n[node]'), "catalogue.files: expected a file at "),
        (
            ("[node]", '[clock]\nmode = "scaled"\nepoch_utc = "noon"\nanchor_unix_s = 0\n[node]'),
            "clock.epoch_utc: ",
        ),
        (("[node]", "[node"), "node.toml: not TOML: "),
    ],
)
@pytest.mark.parametrize("command", ["check", "run", "process", "replay"])
def test_a_config_error_is_one_line_with_file_key_and_expectation_and_exit_code_2(
    command: str, change: tuple[str, str], said: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(CONFIG.replace(*change))
    inputs = {"process": ["x.b3"], "replay": ["journal"]}.get(command, [])
    line = complaint(capsys, [command, *inputs, "--config", str(config)])
    assert line.startswith(str(config))
    assert said in line


def test_a_config_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot be read: No such file" in complaint(capsys, ["check", "--config", str(tmp_path / "none")])


def test_the_commands_of_the_bench_are_found_and_only_the_asked_one_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "bench_for_test.py").write_text(
        "def register(subparsers):\n"
        "    subparsers.add_parser('bench', help='a bench').set_defaults(run=lambda args: 7)\n"
        "def broken(subparsers):\n    raise RuntimeError('no\\nluck')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [
        EntryPoint("bench", "bench_for_test:register", cli.GROUP),
        EntryPoint("bad", "bench_for_test:broken", cli.GROUP),
        EntryPoint("gone", "no_such_module:register", cli.GROUP),
    ]
    monkeypatch.setattr(cli, "entry_points", lambda group: points)
    assert cli.main(["bench"]) == 7
    assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    captured = capsys.readouterr()
    assert "a bench" in captured.out
    assert captured.err.splitlines() == [
        "fusionnode: warning: the command 'bad' cannot be loaded: RuntimeError: no luck",
        "fusionnode: warning: the command 'gone' cannot be loaded: ModuleNotFoundError: "
        "No module named 'no_such_module'",
    ]


BASE_INSTALL = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in %r:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from fusionnode.cli import main
sys.exit(main(sys.argv[1:]))
"""
NODE_ONLY = {
    "numpy",
    "numba",
    "scipy",
    "pydantic",
    "serial",
    "erfa",
    "orjson",
    "sgp4",
    "rich",
    "filterpy",
    "astropy_iers_data",
}


def base_install(*argv: str) -> subprocess.CompletedProcess[str]:
    program = BASE_INSTALL % (NODE_ONLY,)
    return subprocess.run([sys.executable, "-c", program, *argv], capture_output=True, text=True, timeout=60)


def test_a_subscribers_install_has_help_and_subscribe() -> None:
    done = base_install("--help")
    assert done.returncode == 0
    assert "subscribe" in done.stdout
    assert base_install("subscribe", "--help").returncode == 0


def test_a_subscribers_install_says_what_a_nodes_command_needs(config: Path) -> None:
    done = base_install("check", "--config", str(config))
    assert done.returncode == 2
    name, _, rest = done.stderr.removeprefix("fusionnode: ").partition(" ")
    assert name in NODE_ONLY
    assert rest == "is missing; it comes with: pip install 'fusionnode[node]'\n"


def test_an_unexpected_error_is_one_line_and_a_traceback_only_with_debug(
    monkeypatch: pytest.MonkeyPatch, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fusionnode.cli import check

    def broken(args: object) -> int:
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(check, "run", broken)
    argv = ["check", "--config", str(config)]
    assert "unexpected RuntimeError: two lines" in complaint(capsys, argv, 1)
    assert cli.main(["--debug", *argv]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_and_a_reader_that_leaves_are_no_errors(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fusionnode.cli import check

    def interrupted(args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "run", interrupted)
    assert cli.main(["check", "--config", str(config)]) == 130
    shell = (
        f"'{sys.executable}' -m fusionnode check --config '{config}' --json | true; echo ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    journal = Journal(tmp_path / "j", Meta("0", "e", 0, "c", "o"))
    journal.append(LinkRecord(10**18, "radar", b"\x01\x02"))
    journal.append(Tick(10**18))
    journal.close()
    return tmp_path / "j"


def test_journal_show_prints_a_line_a_record(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["journal", "show", str(journal)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "LinkRecord" in lines[1]
    assert "radar 0102" in lines[1]
    assert cli.main(["journal", "show", str(journal), "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {"seq": 3, "kind": "Tick", "t_ns": 10**18}


def test_journal_verify_tells_damage_from_a_clean_end(
    journal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["journal", "verify", str(journal), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["records"], result["reason"]) == (3, "end")
    segment = journal / "000001.fnj"
    segment.write_bytes(segment.read_bytes()[:-1])
    assert cli.main(["journal", "verify", str(journal)]) == 1
    assert "2 records (1 LinkRecord, 1 Meta); torn at 000001.fnj:" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["show", "verify"])
def test_a_folder_without_a_journal_is_one_line(
    action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "expected a folder with journal segments" in complaint(
        capsys, ["journal", action, str(tmp_path)], 1
    )


def test_a_run_that_is_not_there_is_one_line(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, ["journal", "show", str(journal), "--run", "3"], 1)
    assert line.endswith("expected a run from 0 to 0 (is 3)")
