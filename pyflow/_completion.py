"""Scripts that complete the command line in a shell, made from its parser."""

import argparse


def script(parser, shell):
    """Return the script of a shell for a parser with commands: "bash" or "zsh"."""
    commands = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    words = {action.dest: action.help for action in commands._choices_actions}
    return SHELLS[shell](parser.prog, commands.choices, words)


def _options(command):
    """Return the options of a command, each with its spellings, long ones as --no-... too."""
    return [action for action in command._actions if action.option_strings]


def _choices(command):
    """Return what positional arguments may be, where they are a choice."""
    found = [a.choices for a in command._actions if not a.option_strings and a.choices]
    return list(found[0]) if found else None


def _bash(prog, commands, words):
    cases = []
    for name, command in commands.items():
        options = _options(command)
        flags = " ".join(flag for action in options for flag in action.option_strings)
        takes = [action for action in options if action.nargs != 0]
        lines = [
            f"{'|'.join(a.option_strings)}) COMPREPLY=($(compgen -W '{' '.join(a.choices)}' "
            '-- "$word")); return ;;'
            for a in takes
            if a.choices
        ]
        other = "|".join(flag for a in takes if not a.choices for flag in a.option_strings)
        lines += [f'{other}) COMPREPLY=($(compgen -f -- "$word")); return ;;'] if other else []
        asked = "\n".join(f"            {line}" for line in lines)
        asked = f'        case "$before" in\n{asked}\n        esac\n' if lines else ""
        values = _choices(command)
        rest = f"-W '{' '.join(values)}'" if values else "-f"
        cases.append(f"    {name})\n{asked}        flags='{flags}'; rest=\"{rest}\" ;;\n")
    return f"""# bash completion of {prog}: eval "$({prog} completion bash)"
_{prog}() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" flags rest
    if [ "$COMP_CWORD" = 1 ]; then
        COMPREPLY=($(compgen -W '{" ".join(commands)} --help --version' -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{"".join(cases)}    esac
    case "$word" in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
    *) eval "COMPREPLY=(\\$(compgen $rest -- \\"\\$word\\"))" ;;
    esac
}}
complete -o filenames -F _{prog} {prog}
"""


def _zsh(prog, commands, words):
    cases = []
    for name, command in commands.items():
        specs = [f"'{_spec(a, flag)}'" for a in _options(command) for flag in a.option_strings]
        values = _choices(command)
        specs.append(f"'*:{name}:({' '.join(values)})'" if values else "'*:file:_files'")
        joined = " \\\n            ".join(specs)
        cases.append(f"    {name})\n        _arguments -s \\\n            {joined} ;;\n")
    listed = "\n".join(f"        '{name}:{_quoted(words[name])}'" for name in commands)
    return f"""#compdef {prog}
# zsh completion of {prog}: eval "$({prog} completion zsh)", or a file _{prog} in a folder of $fpath
_{prog}() {{
    local -a commands=(
{listed}
    )
    if (( CURRENT == 2 )); then
        _describe command commands
        return
    fi
    local name=$words[2]
    shift words
    (( CURRENT-- ))
    case $name in
{"".join(cases)}    esac
}}
if [ "$funcstack[1]" = _{prog} ]; then _{prog} "$@"; else compdef _{prog} {prog}; fi
"""


def _spec(action, flag):
    """Return an option as zsh's _arguments takes it."""
    spec = f"{flag}[{_quoted(action.help or '')}]"
    if action.nargs == 0:
        return spec
    what = f"({' '.join(action.choices)})" if action.choices else "_files"
    return f"{spec}:{_quoted(str(action.metavar or action.dest))}:{what}"


def _quoted(text):
    """Return words for a specification of zsh's in single quotes."""
    for sign in "\\[]:":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("'", "'\\''")


SHELLS = {"bash": _bash, "zsh": _zsh}
