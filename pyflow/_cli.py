"""The command line, `pyflow` or `python -m pyflow`: its options, and how it ends.

Exit codes: 0, 1 for an error, of which one line on stderr tells, 2 for a command that is not
understood, 130 after Ctrl-C, 141 where nobody reads on what is written, as of what SIGPIPE ends.
What the commands do is in `_commands`.
"""

import argparse
import os
import re
import sys
import warnings

from pyflow import _commands, _completion
from pyflow._core import __version__

FORMATS = (
    "Tables are CSV, NPY, NPZ, FITS, HDF5 or Parquet, by their suffix; what stands behind a colon "
    "is a data set in the file, as in survey.h5:galaxies. - is standard input or output, as CSV "
    "with the columns' names in the first line. Columns of arrays without names are numbers from 0."
)
# What the library's arguments are called here, where that is not an option of the same name.
CALLED = {
    "data_train": "TABLE",
    "data_validate": "--validate",
    "condition_validate": "--condition",
    "weight_train": "--weights",
    "weight_validate": "--weights",
    "labels_validate": "--labels",
    "x": "TABLE",
    "y": "--condition",
    "data": "TABLE",
    "model": "MODEL",
    "n": "N",
}
# Python's names within a sentence, where an option would not read well.
WITHIN = {"data_train": "the training rows", "data_validate": "the validation rows"}
NEGATIVE = re.compile(r"-[\d.]")


def main(argv=None):
    """Run a command and return its exit code.

    Parameters
    ----------
    argv : list of str, optional
        Default: those of the process.
    """
    try:
        args = parser().parse_args(_joined(sys.argv[1:] if argv is None else argv))
    except SystemExit as error:
        return error.code or 0
    args.told = {}  # rows and columns that messages speak of: see `_plain`
    with warnings.catch_warnings():
        if not sys.warnoptions:
            for category in (UserWarning, RuntimeWarning):
                warnings.simplefilter("default", category)
        warnings.showwarning = lambda message, *_: _say(f"warning: {_plain(str(message), args)}")
        try:
            args.run(args)
            if sys.stdout is not None:
                sys.stdout.flush()
        except BrokenPipeError:  # of a pipe into head, say; and nothing is to fail at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 128 + 13
        except KeyboardInterrupt:
            _say(f"interrupted{_commands.left(args)}")
            return 130
        except _commands.ArgumentsError as error:
            _say(f"error: {error}")
            return 2
        except (ValueError, TypeError, OSError, ImportError, RuntimeError, MemoryError) as error:
            words = [_plain(_words(error), args)]
            _say(f"error: {'. '.join(words + getattr(error, '__notes__', []))}")
            return 1
    return 0


def _words(error):
    """Return what an exception says; of a file what is wrong with it, without its number."""
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, str):
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _say(text):
    if sys.stderr is not None:
        print("pyflow:", " ".join(text.split()), file=sys.stderr)


def _joined(argv):
    """Return arguments with negative numbers behind an option made part of it, as in --prior=-1,1.

    argparse takes what begins with a minus for an option unless it is a single number.
    """
    found = []
    for word in argv:
        if NEGATIVE.match(word) and found and re.fullmatch(r"--[a-z][\w-]*", found[-1]):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _plain(text, args):
    """Return a message of the library in the words of the command line.

    Arguments at its beginning become options, and rows and columns those of the file: `args.told`
    has, of an argument's name, the rows (or None) and the names of columns (or None).
    """
    found = re.match(r"((?:\w+, )*\w+): ", text)
    if not found:
        return _optioned(text, args)
    words, rest = found[1].split(", "), _optioned(text[found.end() :], args)
    rows, columns = args.told.get(words[0], (None, None))
    if rows is not None:
        rest = re.sub(r"\brow (\d+)", lambda m: _of("row", rows, m), rest)
    if columns is not None:
        named = r"\bcolumn (\d+)(?: \((?:'[^']*'|\"[^\"]*\")\))?"  # as the library may name it
        rest = re.sub(named, lambda m: _of("column", columns, m), rest)
    return f"{', '.join(_option(word, args) for word in words)}: {rest}"


def _optioned(text, args):
    """Return a sentence with options of the command for Python's: --n-models 1 for n_models=1."""
    text = text.replace("take model.members[k], or ", "")
    options = {*vars(args), *vars(parser().parse_args(["fit", "-", "-o", "-"]))}  # "fit with ..."

    def option(match):
        word, value = match[1], match[2]
        if word in WITHIN and value is None:
            return WITHIN[word]
        if word not in options or (value is None and "_" not in word):  # a word of English
            return match[0]
        said = "--" + word.replace("_", "-")
        if value in ("True", "False"):
            return said if value == "True" else said.replace("--", "--no-")
        return said if value is None else f"{said} {value}"

    quoted = r"`(\w+)`"  # a word of English is an argument there
    text = re.sub(quoted, lambda m: f"--{m[1]}" if m[1] in options else m[0], text)
    # neither in quotes nor in a file's name
    return re.sub(r"(?<![\w'\"./-])([a-z]\w+)(?:=(\w+))?(?![\w'\"/(]|\.\w)", option, text)


def _of(what, known, match):
    """Return "row 7" or "column 'b'" for a match with the number of it in `known`."""
    number = int(match[1])
    if number >= len(known):
        return match[0]
    return f"{what} {known[number]!r}" if what == "column" else f"{what} {known[number]}"


def _option(word, args):
    if word == "data_validate" and getattr(args, "validate", "") is None and word in args.told:
        return "TABLE"  # of which the validation rows are a part
    if word == "x" and args.command == "posterior":
        return "DATA"
    if word == "y" and getattr(args, "label", None) is not None:
        return "--label"
    if word == "y" and getattr(args, "labels", None) is not None:
        return "--labels"
    if word not in CALLED and hasattr(args, word):
        return "--" + word.replace("_", "-")
    return CALLED.get(word, word)


# ---- options -------------------------------------------------------------------------------------


def parser():
    """Return the parser of all commands."""
    top = argparse.ArgumentParser(
        prog="pyflow",
        description="Exact probability densities by normalizing flows.",
        epilog=FORMATS + " Exit codes: 0, 1 (error), 2 (usage), 130 (interrupted), "
        "141 (nobody reads the output).",
    )
    top.add_argument("--version", action="version", version=f"pyflow {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, words, *positional):
        made = commands.add_parser(name, help=words, description=f"{words}.", epilog=FORMATS)
        made.set_defaults(run=getattr(_commands, name))
        for what, told in positional:
            kind = {"type": int} if what == "N" else {}
            made.add_argument(what.lower(), metavar=what, help=told, **kind)
        return made

    table, model = ("TABLE", "a table"), ("MODEL", "a file of pyflow fit, or of Flow.save")
    fit = command("fit", "fit a density to a table", table)
    output(fit, "MODEL", "file for the model", required=True)
    fit.add_argument("--validate", metavar="FILE", help="table of validation rows")
    fit.add_argument(
        "--validation-fraction",
        metavar="F",
        type=float,
        help="without --validate: part of the rows, drawn at random, that is held out (0.2); 0: "
        "none, with --max-layers or --n-models",
    )
    columns(fit, "columns of the density (all others)")
    fit.add_argument(
        "--condition",
        metavar="A,B",
        type=listed,
        help="columns y that the density p(x|y) is conditioned on",
    )
    fit.add_argument(
        "--labels",
        metavar="A",
        help="column of the rows' classes, numbers or words: the density is p(x|class)",
    )
    fit.add_argument(
        "--bounds",
        metavar="A=LOW,HIGH",
        action="append",
        help="where a column's density ends; either may be left out; once for each column",
    )
    fit.add_argument("--weights", metavar="A", help="column of the rows' weights")
    numbers = {
        "n-models": "fits on other splits, which are mixed (4 of a small table)",
        "seed": "of the fit, and of the rows held out (0)",
        "max-layers": "stop at so many layers",
        "patience": "layers to wait for an improvement on the validation rows",
    }
    for name, words in numbers.items():
        fit.add_argument(f"--{name}", metavar="N", type=int, help=words)
    kinds = {
        "polish": "begin with layers that are trained together",
        "autoregressive": "networks in place of slices; --no-autoregressive: slices alone",
    }
    for name, words in kinds.items():
        fit.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, help=words)
    fit.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="file for the unfinished fit, from which the same command goes on",
    )

    logp = command("logp", "log-densities of a table's rows, in nats", model, table)
    output(logp, "OUT", "table of one column, logp (-)", default="-")
    columns(logp, "columns of the points: the model's first, its second, ... (by its names)")
    known(logp)

    sample = command("sample", "draw points from a model", model, ("N", "how many"))
    output(sample, "OUT", "table of the points (-)", default="-")
    sample.add_argument("--seed", metavar="N", type=int, help="(another one every time)")
    sample.add_argument(
        "--condition",
        metavar="VALUES",
        help="of a conditional model: numbers, or NAME=NUMBER, with commas between",
    )
    sample.add_argument("--label", metavar="CLASS", help="of a model of classes: which to draw")
    sample.add_argument("--logp", action="store_true", help="add a column of log-densities, logp")

    command("info", "say what a model is", model)

    plot = command("plot", "draw a table's rows and samples from a model", model, table)
    output(plot, "PNG", "picture; PDF and SVG will do too", required=True)
    plot.add_argument(
        "--kind", choices=list(_commands.PLOTS), help="(pairs; of fields maps, of images images)"
    )
    columns(plot, "columns of the points: the model's first, its second, ... (by its names)")
    known(plot)
    plot.add_argument("--show", metavar="A,B", type=listed, help="columns to draw")
    plot.add_argument("--seed", metavar="N", type=int, default=0, help="of the samples (0)")

    data = (
        "DATA",
        "a table; its rows are observations that share one set of parameters, unless --each",
    )
    posterior = command(
        "posterior", "the parameters of a conditional model, given data", model, data
    )
    output(posterior, "OUT", "table of points drawn from the posterior")
    posterior.add_argument(
        "--each",
        action="store_true",
        help="each row has parameters of its own: a posterior of each, and a column row in OUT",
    )
    posterior.add_argument(
        "--prior",
        metavar="[A=]LOW,HIGH",
        action="append",
        help="range of a uniform prior: of each parameter in turn, or by name (training range)",
    )
    posterior.add_argument(
        "--fixed", metavar="A=VALUE", action="append", help="a condition that is known"
    )
    columns(posterior, "columns of the data: the model's first, its second, ... (by its names)")
    posterior.add_argument("--temperature", metavar="T", type=float, help="power of the likelihood")
    posterior.add_argument(
        "--method", choices=["grid", "emcee"], help="(by the parameters' number)"
    )
    posterior.add_argument(
        "--samples",
        metavar="N",
        type=int,
        default=10000,
        help="points in OUT, of each posterior (10000)",
    )
    posterior.add_argument("--seed", metavar="N", type=int, default=0, help="(0)")

    for made in commands.choices.values():
        made.add_argument("--threads", metavar="N", type=int, help="(all cores)")
        made.add_argument("--quiet", action="store_true", help="no progress, no words at the end")
        made.add_argument("--json", action="store_true", help="print one JSON object at the end")

    words = "print a script for the shell that completes commands and options"
    complete = commands.add_parser("completion", help=words, description=f"{words}.")
    complete.add_argument("shell", choices=list(_completion.SHELLS))
    complete.set_defaults(run=lambda args: print(_completion.script(top, args.shell), end=""))
    return top


def listed(text):
    """Return the words between commas."""
    return [word.strip() for word in text.split(",")]


def output(made, metavar, words, **how):
    """Add -o."""
    made.add_argument("-o", "--output", metavar=metavar, help=words, **how)


def columns(made, words):
    """Add --columns."""
    made.add_argument("--columns", metavar="A,B", type=listed, help=words)


def known(made):
    """Add --condition and --labels, of columns."""
    made.add_argument(
        "--condition",
        metavar="A,B",
        type=listed,
        help="of a conditional model: columns of what it is conditioned on, in its order (by its "
        "names)",
    )
    made.add_argument("--labels", metavar="A", help="of a model of classes: the rows' classes")
