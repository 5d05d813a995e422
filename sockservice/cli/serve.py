"""`sockservice serve`: twistd's plugin in the foreground, for those who have no twistd on PATH."""

import sys

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def serve(options: tuple[str, ...]) -> None:
    """Serve lines and datagrams, in the foreground.

    The same as `twistd -n --pidfile= sockservice`, with the same OPTIONS; `sockservice serve
    --help` lists them.

    Exit status: 0 it was told to end; 1 it could not start, or not go on.
    """
    from twisted.application import app
    from twisted.scripts import twistd

    class ServerOptions(twistd.ServerOptions):  # type: ignore[misc, name-defined, unused-ignore]
        """twistd's options, which know by what name twistd is run here."""

        command = "sockservice serve"

    sys.argv[1:] = ["-n", "--pidfile=", "sockservice", *options]
    app.run(twistd.runApp, ServerOptions)
