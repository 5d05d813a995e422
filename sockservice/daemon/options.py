"""The options of `twistd sockservice`, made of the table of settings."""

import sys
from collections.abc import Callable, Sequence

from twisted.python import usage

from sockservice import __version__
from sockservice.daemon.engines import backend
from sockservice.daemon.pidfile import writable
from sockservice.limits.access import Access
from sockservice.limits.admission import Limits
from sockservice.limits.readers import absolute
from sockservice.limits.setting import Setting
from sockservice.limits.settings import FILES, SETTINGS
from sockservice.store.engine import EVERYTHING, Backend, Retention
from sockservice.wire.escaping import printable

_DIVIDED = {setting.name for setting in SETTINGS if setting.divided}


class Options(usage.Options):
    """What can be said on twistd's command line; the value of each option, by its name."""

    synopsis = "[options]"
    longdesc = (
        "Acknowledges every line it receives over TCP with `ok` and sends every datagram it "
        f"receives over UDP back. {FILES}"
    )
    # usage is told of no default: what has none afterwards was not given.
    optParameters = [
        [setting.name, setting.short, None, setting.description, setting.coerce]
        for setting in SETTINGS
        if setting.reader is not None and not setting.repeated
    ]
    optFlags = [
        [setting.name, setting.short, setting.description]
        for setting in SETTINGS
        if setting.reader is None
    ]

    #: Processes that divide among them what is allowed to all connections together.
    processes = 1
    #: The engine of the store, if there is one.
    backend: Backend | None = None
    #: The options that were given, flags aside.
    chosen: frozenset[str] = frozenset()

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        # twistd may leave this folder (--rundir) before the files are read again.
        self._given = None if options is None else [absolute(word) for word in options]
        try:
            super().parseOptions(options)
        except usage.UsageError as problem:
            if self.parent is None:
                raise
            # twistd would print all of its help before it, and that on stdout.
            print(f"sockservice: {printable(str(problem))}", file=sys.stderr)
            raise SystemExit(1) from None

    @property
    def given(self) -> Sequence[str]:
        """The words of the command line that these options are."""
        return sys.argv[1:] if self._given is None else self._given

    def share(self, option: str) -> int:
        """Give this process's part of a number, if it is one of a limit that is divided."""
        value: int = self[option]
        return -(-value // self.processes) if option in _DIVIDED else value

    def again(self) -> "Options":
        """Read the same options once more, and the files they name.

        :raises UsageError: A file is not what it should be any more.
        """
        options = Options()
        options.parseOptions(self._given)
        options.processes = self.processes
        return options

    def postOptions(self) -> None:
        writable(self.parent)
        valued = [each for each in SETTINGS if each.reader is not None]
        self.chosen = frozenset(each.name for each in valued if self.get(each.name) is not None)
        for setting in SETTINGS:
            if setting.reader is None:
                self[setting.name] = bool(self[setting.name])
            elif setting.name not in self.chosen:
                self[setting.name] = setting.default
        retention = Retention(self["retain-age"], self["retain-size"])
        if self["store"] is not None:
            try:
                self.backend = backend(self["store"], retention, self["store-reserve"])
            except ValueError as problem:
                raise usage.UsageError(f"--store {self['store']}: {problem}") from None
        elif retention != EVERYTHING:
            raise usage.UsageError("--retain-age and --retain-size need a --store")

    def limits(self) -> Limits:
        """Give the limits that were asked for."""
        numbers = {
            each.limit: self.share(each.name)
            for each in SETTINGS
            if each.limit not in ("", "access")
        }
        # An empty list that was asked for lets in nobody.
        access = Access(self["allow"], self["deny"], only="allow" in self.chosen)
        return Limits(access, **numbers)

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"sockservice {__version__}")
        raise SystemExit(0)


def _adding(setting: Setting) -> Callable[[Options, str], None]:
    """Give the method that adds to the values of a repeated option."""

    def add(self: Options, text: str) -> None:
        self[setting.name] = [*self.get(setting.name, ()), *setting.coerce(text)]

    add.__doc__ = setting.description
    return add


for _setting in SETTINGS:
    if _setting.repeated:
        setattr(Options, f"opt_{_setting.name.replace('-', '_')}", _adding(_setting))
