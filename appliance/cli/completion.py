"""``appliance completion``: scripts for shells. They ask ``appliance complete`` at each Tab, so they never go stale."""

from __future__ import annotations

import argparse

_BASH = """_appliance() {
    local IFS=$'\\n'
    COMPREPLY=($(appliance complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    if [[ ${#COMPREPLY[@]} -eq 0 ]]; then compopt -o default; fi
}
complete -F _appliance appliance
"""
_ZSH = """#compdef appliance
_appliance() {
    local -a found
    found=("${(@f)$(appliance complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then compadd -a found; else _files; fi
}
if [ "$funcstack[1]" = "_appliance" ]; then _appliance "$@"; else compdef _appliance appliance; fi
"""
_FISH = """function __appliance_complete
    set -l words (commandline -opc)
    appliance complete -- $words[2..-1] (commandline -ct) 2>/dev/null
end
complete -c appliance -f -a '(__appliance_complete)'
"""
SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which shell."""
    parser.epilog = (
        "Examples:\n"
        "  source <(appliance completion bash)\n"
        "  appliance completion bash > /etc/bash_completion.d/appliance\n"
        '  appliance completion zsh > "${fpath[1]}/_appliance"\n'
        "  appliance completion fish > ~/.config/fish/completions/appliance.fish"
    )
    parser.add_argument("shell", choices=tuple(SCRIPTS))


def run(args: argparse.Namespace) -> int:
    """Print it."""
    print(SCRIPTS[args.shell], end="")
    return 0
