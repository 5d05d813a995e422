"""`sockservice completion`: shell completion for bash, zsh and fish."""

import os

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ZshComplete,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

#: The schemes of targets, with their descriptions.
SCHEMES = {
    "tcp:": "lines to HOST:PORT",
    "tls:": "lines to HOST:PORT, encrypted",
    "relp:": "syslog messages to HOST:PORT, acknowledged",
    "udp:": "datagrams to HOST:PORT",
    "unix:": "lines to a socket's PATH",
    "unix-datagram:": "datagrams to a socket's PATH",
    "unix-seqpacket:": "packets to a socket's PATH",
}


def targets(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list["CompletionItem[str]"]:
    """Complete a target: its scheme, or the path of a UNIX socket."""
    scheme, colon, path = incomplete.partition(":")
    if not colon:
        return [
            CompletionItem(begin, help=what)
            for begin, what in SCHEMES.items()
            if begin.startswith(scheme)
        ]
    if not scheme.startswith("unix"):
        return []
    return [CompletionItem(f"{scheme}:{found}") for found in _paths(path)]


def _paths(begun: str) -> list[str]:
    """Return the paths that start with `begun`; those of directories end in a slash."""
    folder, slash, name = begun.rpartition("/")
    try:
        entries = sorted(os.scandir(folder + slash or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    return [
        folder + slash + entry.name + ("/" if entry.is_dir() else "")
        for entry in entries
        if entry.name.startswith(name) and (name or not entry.name.startswith("."))
    ]


# bash splits words at colons and equals signs as well, and replaces only what follows
# the last one. No space follows a completion that is to be continued.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' response kind value
    local line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##*[[:space:]]}"
    local kept=""
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && kept="${word%%:*}:"
    response=$(env COMP_WORDS="$line" %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    for value in $response; do
        kind="${value%%%%,*}"
        value="${value#*,}"
        if [[ $kind == file || $kind == dir ]]; then
            compopt -o default
            continue
        fi
        [[ $value == *[:/] ]] && compopt -o nospace
        COMPREPLY+=("${value#"$kept"}")
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local -a response
    local kind value help
    response=("${(@f)$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((CURRENT - 1)) \
%(complete_var)s=zsh_complete %(prog_name)s)}")
    for kind value help in $response; do
        value="${value//\\\\:/:}"
        if [[ $kind == (file|dir) ]]; then
            _files
        elif [[ $value == *[:/] ]]; then
            compadd -U -V going -S '' -- "$value"
        else
            compadd -U -V whole -- "$value"
        fi
    done
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""


class Bash(BashComplete):
    """Completion for bash that treats a target as one word."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        incomplete = "" if not words or line[-1].isspace() else words.pop()
        return words, incomplete


class Zsh(ZshComplete):
    """Completion for zsh that adds no space after a completion that is to be continued."""

    source_template = _ZSH


for _shell in (Bash, Zsh):
    add_completion_class(_shell)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that lets SHELL complete commands, options and targets.

    bash: put `eval "$(sockservice completion bash)"` into ~/.bashrc.

    zsh: put `eval "$(sockservice completion zsh)"` into ~/.zshrc, behind compinit.

    fish: `sockservice completion fish > ~/.config/fish/completions/sockservice.fish`
    """
    made = get_completion_class(shell)
    assert made is not None
    command = context.find_root().command
    click.echo(made(command, {}, "sockservice", "_SOCKSERVICE_COMPLETE").source(), nl=False)
