"""Options mean the same in every command."""

import click

from sockservice.cli import main

#: The short form of each option that has one. In bench -c has another meaning, as in wrk.
SHORT = {
    "--connections": "-c",
    "--count": "-c",
    "--duration": "-d",
    "--interval": "-i",
    "--processes": "-t",
    "--quiet": "-q",
    "--rate": "-R",
    "--size": "-s",
    "--timeout": "-W",
    "--verbose": "-v",
}
OTHERS = {("bench", "--count"): "-n"}


def test_an_option_has_the_same_short_form_in_every_command() -> None:
    seen = set()
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        assert command is not None
        for option in command.params:
            if isinstance(option, click.Option) and option.opts not in (["-4"], ["-6"]):
                long = max(option.opts, key=len)
                short = [each for each in option.opts if len(each) == 2]
                wanted = OTHERS.get((name, long), SHORT.get(long))
                assert short == ([wanted] if wanted else []), (name, long)
                seen |= {long} if short else set()
    assert seen == {*SHORT}
