"""The command line. Commands are registered by import path, so that `darts --help` loads next to nothing."""

import errno
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, CoercionError, CycloptsError, Group, MissingArgumentError, Parameter

from darts.config import ConfigFile, read_config
from darts.display.console import say
from darts.display.logs import configure_logging
from darts.display.plain_text import one_line, printable
from darts_utils.errors import DartsError
from darts_utils.quoting import shown

EXIT_NOTHING_STARTED = 2
EXIT_INTERRUPTED = 130
LONG_QUOTED = re.compile(r'(?<=").{120,}(?=")', re.DOTALL)
"""What somebody gave and cyclopts quotes in full."""
LONG_WORD = re.compile(r"(?<!\S)[^\s/]{100,}(?!\S)")
"""What somebody gave and a message tells in full; no path."""

GLOBAL_OPTIONS = Group("Global options", sort_key=100)


def _version() -> str:
    from darts import __version__

    return __version__


app = App(
    name="darts",
    help="Find thawing permafrost from space.",
    version=_version,
    help_format="plaintext",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=(), json_list=False),  # "[x" is a file too
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,  # `run_command_line` tells what an interrupt leaves
)
app.meta.suppress_keyboard_interrupt = False
run = App(name="run", help="Find thaw features in satellite images.")
prepare_data = App(name="prepare-data", help="Download everything a later offline run needs.")
model = App(name="model", help="Look at checkpoints and convert older ones.")
train = App(name="train", help="Train models: datasets from labels and scenes, networks, scores.")
create_dataset = App(name="create-dataset", help="Make patches for training from labels and scenes.")
for group in (run, prepare_data, model, train):
    app.command(group)
train.command(create_dataset)

run.command("darts.commands.run:sentinel2", name="sentinel2", help="Find thaw features in Sentinel-2 scenes.")
run.command("darts.commands.run:planet", name="planet", help="Find thaw features in PlanetScope images.")
app.command("darts.commands.demo:demo", name="demo", help="Make a synthetic Arctic sample and run darts on it.")
app.command(
    "darts.commands.import_scene:import_scene",
    name="import-scene",
    help="Put one's own GeoTIFFs and SAFE products into the raw data store.",
)
app.command("darts.commands.env_info:env_info", name="env-info", help="Show versions, devices, memory and folders.")
prepare_data.command(
    "darts.commands.prepare_data:sentinel2",
    name="sentinel2",
    help="Download the scenes and auxiliary data that an offline run of Sentinel-2 scenes needs.",
)
prepare_data.command(
    "darts.commands.prepare_data:planet",
    name="planet",
    help="Download the auxiliary data that an offline run of Planet images needs.",
)
model.command("darts.commands.model:info", name="info", help="Show what model files say of themselves.")
model.command("darts.commands.model:convert", name="convert", help="Write a model in the one form of darts.")
app.command("darts.commands.status:status", name="status", help="Tell how far an output folder is.")
app.command("darts.commands.verify:verify", name="verify", help="Check the files of an output folder.")
app.command("darts.commands.merge:merge", name="merge", help="Combine tiles into the DARTS dataset.")
train.command(
    "darts.commands.train:validate_dataset",
    name="validate-dataset",
    help="Tell what a dataset holds, and what is amiss.",
)
train.command("darts.commands.train:fit", name="fit", help="Train a network on datasets of patches.")
train.command("darts.commands.train:evaluate", name="test", help="Tell how good a trained model is.")
train.command("darts.commands.train:crossval", name="crossval", help="Train and test on several folds and seeds.")
train.command("darts.commands.train:tune", name="tune", help="Search for good hyperparameters.")
train.command(
    "darts.commands.train:demo_models", name="demo-models", help="Train the models of the demo on synthetic landscapes."
)
create_dataset.command(
    "darts.commands.train:create_sentinel2",
    name="sentinel2",
    help="Make patches from labels and the Sentinel-2 scenes that fit them.",
)
create_dataset.command(
    "darts.commands.train:create_planet",
    name="planet",
    help="Make patches from labels and the Planet images that they were drawn on.",
)


@app.meta.default
def launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    config_file: Annotated[Path | None, Parameter(group=GLOBAL_OPTIONS)] = None,
    log_dir: Annotated[Path | None, Parameter(group=GLOBAL_OPTIONS)] = None,
    verbose: Annotated[int, Parameter(name=["--verbose", "-v"], count=True, group=GLOBAL_OPTIONS)] = 0,
    log_plain: Annotated[bool, Parameter(group=GLOBAL_OPTIONS, negative="")] = False,
    log_json: Annotated[bool, Parameter(group=GLOBAL_OPTIONS, negative="")] = False,
) -> object:
    """Set up the log and the configuration, then run the command.

    Parameters
    ----------
    config_file
        TOML file with table [darts]; default: config.toml if it exists.
    log_dir
        Folder for a log file of this command; a run also keeps one beside its results.
    verbose
        -v debug messages, -vv those of the libraries too, -vvv also where each comes from.
    log_plain
        Plain log lines, no colours and no live display.
    log_json
        One JSON object a line on stderr for every log line and event, and nothing else there.
    """
    command = "-".join(token for token in tokens[:2] if token.isidentifier() or "-" in token[1:]) or "darts"
    configure_logging(command, verbosity=verbose, log_dir=log_dir, plain=log_plain, as_json=log_json)
    found = read_config(config_file)
    typed_only = partial(_options_of, app.meta)
    app.config = (ConfigFile(*found, elsewhere=_known_options, typed_only=typed_only),) if found else ()
    return app(tokens)


def run_command_line(tokens: Sequence[str]) -> int:
    """Run one command line and return its exit code; every expected error becomes one message on stderr."""
    app.config = ()  # that of an earlier command line in this process
    for token in tokens:
        if not _is_text(token):
            _say(f"{shown(token)} is no text that a system can take as a name or value; give another one")
            return EXIT_NOTHING_STARTED
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as on stderr: names of files may be no Unicode
    try:
        result = app.meta(list(tokens), exit_on_error=False, print_error=False, result_action="return_value")
    except KeyboardInterrupt:
        _say("interrupted; finished tiles are kept, run the same command again to go on")
        return EXIT_INTERRUPTED
    except CycloptsError as error:
        _say(_told(error))
        return EXIT_NOTHING_STARTED
    except DartsError as error:
        _say(str(error))
        return EXIT_NOTHING_STARTED
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # nobody could look whether there is such a file
            raise
        _say(f"{shown(error.filename)} is longer than the name of a file can be; give a shorter one")
        return EXIT_NOTHING_STARTED
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point of the `darts` command."""
    try:
        code = run_command_line(sys.argv[1:])
    except KeyboardInterrupt:  # once more, while the first one was told of
        code = EXIT_INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what follows would tell of an interrupt by a traceback
    if code == EXIT_INTERRUPTED:
        # Downloads that run in threads would be waited for; what they leave half done counts as absent.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _told(error: CycloptsError) -> str:
    """Return what to say of a command line that cyclopts refuses, where its own words leave one in the dark."""
    text = _without_middles(LONG_QUOTED, one_line(error))
    if isinstance(error, CoercionError) and (table := re.match(r"Invalid value for (--[\w.-]+).* into dict\[", text)):
        return f"{text} Give each key as an option of its own: {table[1]}.KEY VALUE"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        command = " ".join(["darts", *(error.command_chain or ())])
        given = error.keyword or error.argument.tokens
        return text if given else f"{command} needs {error.argument.name}; `{command} --help` tells of it"
    return text


def _is_text(token: str) -> bool:
    """Tell whether a file could have such a name: from Python, a NUL or half of a pair of UTF-16 may be given."""
    try:
        return b"\0" not in os.fsencode(token)
    except UnicodeEncodeError:
        return False


def _say(message: str) -> None:
    say(printable(_without_middles(LONG_WORD, message)), level=logging.ERROR, label="error")


def _without_middles(long_value: re.Pattern[str], message: str) -> str:
    return long_value.sub(lambda value: f"{value[0][:40]} … {value[0][-40:]}", message)


def _known_options() -> Iterator[str]:
    """Give the option names of all commands, those of training last: they load most."""
    for group in (app, run, prepare_data, model, train, create_dataset):
        for name in group:
            if not name.startswith("-") and group[name].default_command is not None:
                yield from _options_of(group[name])


def _options_of(command: App) -> Iterator[str]:
    names = (name for argument in command.assemble_argument_collection() for name in argument.names)
    return (name.removeprefix("--") for name in names if name.startswith("--"))
