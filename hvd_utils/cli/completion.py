"""Shell completion, written from the commands' own parsers: one script for bash and for zsh."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Launchers before the command: what follows the command's name is its own.
LAUNCHERS = ("python", "python3", "horovodrun", "mpirun")

SCRIPT = """\
# Completion of imagenet-in-1-hour's commands in {shell}; made by python -m hvd_utils.completion.
{preamble}_imagenet() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command= words= i
  if [[ $word == = ]]; then word=  # bash takes --flag=value for three words
  elif [[ $before == = ]]; then before=${{COMP_WORDS[COMP_CWORD-2]}}; fi
  for ((i = 0; i < COMP_CWORD; i++)); do
    case ${{COMP_WORDS[i]##*/}} in
{names}
    esac
  done
  COMPREPLY=()
  # Where nothing is left to offer, the shell offers files.
  case $command in
{commands}
  esac
  for i in $words; do [[ $i != "$word"* ]] || COMPREPLY+=("$i"); done
}}
complete -o bashdefault -o default -F _imagenet {registered}
"""
ZSH = """\
autoload -Uz compinit bashcompinit
(( $+functions[compdef] )) || compinit
bashcompinit
"""


@dataclass(frozen=True)
class Command:
    """A command: its installed name, what it is called by in a checkout, and its parser."""

    name: str
    called: str
    parser: argparse.ArgumentParser | None  # None: its flags are not known
    values: Mapping[str, Sequence[str]]  # what flags take, where the parser does not say


def script(shell: str, commands: Sequence[Command]) -> str:
    """Return the script that a shell, bash or zsh, reads to complete these commands."""
    names = [f"      {c.name} | {c.called}) command={c.name} ;;" for c in commands]
    registered = [*LAUNCHERS, *(command.name for command in commands)]
    scripts = [command.called for command in commands if command.called.endswith(".py")]
    return SCRIPT.format(
        shell=shell,
        preamble=ZSH if shell == "zsh" else "",
        names="\n".join(names),
        commands="\n".join(map(_case, commands)),
        registered=" ".join([*registered, *scripts]),
    )


def _case(command: Command) -> str:
    """Return the branch of a command: the values of the flag before, else the flags."""
    actions = command.parser._actions if command.parser else []
    optional = [action for action in actions if action.option_strings]
    lines, free = [], []
    for action in optional:
        values = action.choices or command.values.get(action.dest)
        if values:
            flags = " | ".join(action.option_strings)
            lines.append(f"{flags}) words={shlex.quote(' '.join(map(str, values)))} ;;")
        elif action.nargs != 0:
            free += action.option_strings
    if free:
        lines.append(f"{' | '.join(free)}) return ;;")
    all_flags = " ".join(flag for action in optional for flag in action.option_strings)
    # An argument without a flag is a file's name.
    unless = "" if len(optional) == len(actions) > 0 else "[[ $word == -* ]] || return; "
    lines.append(f"*) {unless}words={shlex.quote(all_flags)} ;;")
    branch = "".join(f"        {line}\n" for line in lines)
    return f"    {command.name})\n      case $before in\n{branch}      esac ;;"
