"""The tests with every Python and Twisted that is supported, as far as they are installed here."""

import re

import nox

# The lowest Twisted is older than Python 3.12, whose warnings of what is deprecated it causes.
MATRIX = [
    ("3.11", "lowest"),
    ("3.11", "latest"),
    ("3.12", "latest"),
    ("3.13", "latest"),
    ("3.14", "latest"),
]

# Whoever has only some of them runs those: nox says which it skips.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"


def lowest() -> list[str]:
    """Give the lowest versions that pyproject.toml lets a user have of what he installs."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["prompt"], *extras["status"], *extras["tls"]]
    return sorted({re.sub(r"(\[\w+\])?>=", "==", each) for each in asked})


@nox.session
@nox.parametrize(("python", "twisted"), MATRIX, ids=[f"{p}-{t}" for p, t in MATRIX])
def tests(session: nox.Session, twisted: str) -> None:
    """Run the tests, or those that are named, with the lowest or latest Twisted, click, ..."""
    session.install("-e", ".[dev]", *(lowest() if twisted == "lowest" else []))
    session.run("pytest", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site."""
    session.install("-e", ".[docs]")
    session.run("scripts/docs", external=True, env={"VENV": session.virtualenv.location})


@nox.session
def check(session: nox.Session) -> None:
    """Run every check there is, in an environment of its own."""
    session.install("-e", ".[dev]")
    session.run(
        "scripts/check",
        *session.posargs,
        external=True,
        env={"VENV": session.virtualenv.location},
    )
