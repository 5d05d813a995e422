"""The options of `twistd sockservice`, made of the table of settings."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.python import usage

from sockservice import __version__
from sockservice.daemon import configfile
from sockservice.daemon.configfile import KEYS
from sockservice.daemon.engines import backend
from sockservice.daemon.rundir import before, running, unwritable, usable
from sockservice.limits.access import Access
from sockservice.limits.admission import Limits
from sockservice.limits.readers import words
from sockservice.limits.setting import Setting
from sockservice.limits.settings import CHECK, FILES, SETTINGS
from sockservice.store.engine import EVERYTHING, Backend, Retention
from sockservice.store.nats.place import concealed
from sockservice.wire.escaping import printable

#: Lists that a file which was cut short would lack, and how one says that they are to go.
_GONE = {
    "allow": 'if everybody may come, write allow = ["0.0.0.0/0", "::/0"]',
    "deny": "if nobody is refused, write deny = []",
}

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
    #: The options that were given, flags aside, on the command line or in a file.
    chosen: frozenset[str] = frozenset()
    #: The lists of who may come that were given: such a list never goes without a word.
    lists: frozenset[str] = frozenset()
    #: Whether to say what would be served, and to do nothing.
    checking = False
    #: What else is wrong, besides what is raised.
    wrong: Sequence[str] = ()
    #: What the values are, as `told` writes them, where another process has read them.
    known: Mapping[str, Any] | None = None
    #: Whether that could read them again, the last time that it tried.
    read = True

    def getSynopsis(self) -> str:
        """Return how they are given; what runs twistd by another name has that as `command`."""
        command = getattr(self.parent, "command", "")
        return f"Usage: {command} {self.synopsis}" if command else super().getSynopsis()

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        self._given = None
        if options is not None:
            # twistd goes to where it runs only afterwards.
            self._given = words(options, partial(running, twistd=self.parent))
            options = words(options, partial(before, twistd=self.parent))
        try:
            super().parseOptions(options)
        except usage.UsageError as problem:
            if self.checking:
                report([str(problem), *self.wrong])
                raise SystemExit(1) from None
            if self.parent is None:
                raise
            # twistd would print all of its help before it, and that on stdout.
            report([str(problem)])
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
        options.processes = self.processes
        if self.known is not None:
            options.take(self.known)
        else:
            options.lists = self.lists
            options.parseOptions(self._given)
        return options

    def told(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what has to be told of `values`, of each option by its name, fit for JSON."""
        told = {}
        for setting in SETTINGS:
            value = values[setting.name]
            if setting.name == "config" or (
                value == setting.default and setting.name not in self.chosen
            ):
                continue
            if setting.repeated:
                value = [str(getattr(each, "text", each)) for each in value]
            told[setting.name] = value
        return told

    def take(self, known: Mapping[str, Any]) -> None:
        """Be what another process has read, and tells by `told`; no file is read."""
        self.known = known
        for name, value in known.items():
            setting = KEYS[name]
            if setting.repeated:
                assert setting.reader is not None
                value = [made for text in value for made in setting.reader.read(text)]
            self[name] = value
        self.postOptions()

    def unlike(self, other: "Options") -> list[str]:
        """Give the options that need a restart and whose values are not those of `other`."""
        return [
            each.name
            for each in SETTINGS
            if not each.reloads and _comparable(self[each.name]) != _comparable(other[each.name])
        ]

    def _configure(self) -> None:
        """Take from the file what the command line leaves open."""
        path = self["config"]
        wrong: list[str] = []
        try:
            found = configfile.table(path, wrong)
        except ValueError as problem:
            found, wrong = {}, [str(problem)]
        left = {key: value for key, value in found.items() if not self._said(key)}
        self.update(configfile.values(left, partial(before, twistd=self.parent), wrong))
        if wrong:
            first, *self.wrong = [f"--config {path}: {printable(each)}" for each in wrong]
            raise usage.UsageError(first)

    def _said(self, name: str) -> bool:
        """Return whether the command line gives an option."""
        return bool(self[name]) if KEYS[name].reader is None else self.get(name) is not None

    def postOptions(self) -> None:
        usable(self.parent)
        if self.get("config") is not None:
            self._configure()
        if self.parent is not None and (ready := self.get("ready-file")) is not None:
            why = unwritable(before(ready, self.parent))
            # It is written as another user, where twistd is told so.
            if why not in ("", "not permitted"):
                raise usage.UsageError(f"--ready-file {ready}: {why}")
        valued = [each for each in SETTINGS if each.reader is not None]
        self.chosen = frozenset(each.name for each in valued if self.get(each.name) is not None)
        for gone in sorted(self.lists - self.chosen):
            raise usage.UsageError(f"--config {self['config']}: {gone} is gone; {_GONE[gone]}")
        self.lists = self.chosen & _GONE.keys()
        for setting in SETTINGS:
            if setting.reader is None:
                self[setting.name] = bool(self[setting.name])
            elif setting.name not in self.chosen:
                self[setting.name] = setting.default
        retention = Retention(self["retain-age"], self["retain-size"])
        if self["store"] is not None:
            try:
                self.backend = backend(
                    self["store"], retention, self["store-reserve"], self["line-limit"]
                )
            except ValueError as problem:
                named = concealed(self["store"])
                raise usage.UsageError(f"--store {named}: {problem}") from None
        elif retention != EVERYTHING:
            raise usage.UsageError("--retain-age and --retain-size need a --store")

    def parseArgs(self, *words: str) -> None:
        """Take no words but options."""
        if words:
            raise usage.UsageError(f"{words[0]}: no option; options begin with --")

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

    def opt_check(self) -> None:
        self.checking = True
        # What is imported from now on leaves nothing behind.
        sys.dont_write_bytecode = True

    def opt_version(self) -> None:
        """Print the version and exit."""
        print(f"sockservice {__version__}")
        raise SystemExit(0)


def report(problems: Iterable[str]) -> None:
    """Say on stderr what is wrong, each in one line."""
    for problem in problems:
        print(f"sockservice: {printable(problem)}", file=sys.stderr)


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


Options.opt_check.__doc__ = CHECK


def _adding(setting: Setting) -> Callable[[Options, str], None]:
    """Give the method that adds to the values of a repeated option."""

    def add(self: Options, text: str) -> None:
        self[setting.name] = [*self.get(setting.name, ()), *setting.coerce(text)]

    add.__doc__ = setting.description
    return add


for _setting in SETTINGS:
    if _setting.repeated:
        setattr(Options, f"opt_{_setting.name.replace('-', '_')}", _adding(_setting))
