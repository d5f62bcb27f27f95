"""Settings: where they come from, who wins, and how a wrong one is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stillroom import config
from stillroom.errors import ConfigurationError

TEACHER = '[teachers."gpt-4o"]\nbase_url = "https://api.openai.com/v1"\n'


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("STILLROOM_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def written(text: str) -> str:
    Path("s.toml").write_text(text)
    return "s.toml"


def test_flags_win_over_the_environment_which_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    path = written('port = 1\nhost = "::1"\norganization = "acme"\n')
    monkeypatch.setenv("STILLROOM_PORT", "2")
    monkeypatch.setenv("STILLROOM_HOST", "127.0.0.2")
    loaded = config.load(path, port=3, host=None)
    assert (loaded.port, loaded.host, loaded.organization) == (3, "127.0.0.2", "acme")
    assert config.load(None, port=None).organization == "stillroom"


def test_nested_fields_have_environment_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLROOM_GATEWAY_TOTAL_SECONDS", "1.5")
    assert config.load().gateway.total_seconds == 1.5


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("prot = 1\n", "prot"),
        ('port = "many"\n', "port"),
        ("port = 70000\n", "port"),
        ("port = \n", "TOML"),
        ("[gateway]\ntotal = 1\n", "total"),
        ('[teachers."a"]\nmodel = "x"\n', 'teachers."a"'),
        ('[teachers."a"]\nbase_url = "file:///etc/passwd"\n', "http(s)"),
        ('[teachers."a"]\nkind = "azure"\nbase_url = "https://x"\n', "endpoint"),
        ('[students."a"]\n', 'students."a"'),
        (TEACHER + 'price = { input = "much" }\n', "price"),
        (TEACHER + "price = { output = -0.1 }\n", "`output` is -0.1; expected USD from 0"),
        (TEACHER + "price = { cached_input = nan }\n", "`cached_input` is nan"),
        (TEACHER + "price = { input = inf }\n", "`input` is inf"),
        ('[students."scratch-small"]\nprice = { training = 1e300 }\n', "`training` is 1e+300"),
        ('[students."scratch-small"]\nprecision = "float16"\n', "Allowed are: auto, float32, bfloat16."),
        ('[students."scratch-small"]\nquantization = "8bit"\n', "Allowed are: none, 4bit."),
        ("[training]\nmemory_gb = -1\n", "memory_gb"),
        ("[training]\nmemory_gb = inf\n", "memory_gb"),
        ("[training]\nmemory_gb = nan\n", "memory_gb"),
    ],
)
def test_a_wrong_setting_is_named(text: str, told: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        config.load(written(text))
    assert told in refused.value.message


def test_a_right_file_is_taken() -> None:
    loaded = config.load(written(TEACHER + "price = { input = 2.5, output = 10 }\n"))
    assert loaded.teachers["gpt-4o"].price.output == 10


def test_a_file_that_is_asked_for_must_exist_and_the_default_need_not() -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml does not exist"):
        config.load("none.toml")
    assert config.load().teachers == {}


def test_an_unknown_variable_is_warned_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("STILLROOM_PROT", "1")
    config.load()
    assert "STILLROOM_PROT sets nothing" in caplog.text


def test_settings_of_the_built_in_student_that_change_nothing_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    config.load(written('[students."scratch-small"]\nprecision = "bfloat16"\n'))
    assert "precision and quantization have no effect" in caplog.text


def test_shards_of_one_process_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    config.load(written("[training]\nsharding = true\n"))
    assert "sharding has no effect with one process" in caplog.text
    caplog.clear()
    config.load(written("[training]\nsharding = true\nprocesses = 2\n"))
    assert caplog.text == ""


def test_a_secret_is_read_from_where_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_KEY", "from the environment")
    (tmp_path / "key").write_text("from a file\n")
    assert config.secret("env:SOME_KEY") == "from the environment"
    assert config.secret(f"file:{tmp_path}/key") == "from a file"
    for missing in ("env:NO_SUCH_KEY", "file:/no/such/file"):
        with pytest.raises(ConfigurationError):
            config.secret(missing)
