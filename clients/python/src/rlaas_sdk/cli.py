"""The `rlaas` command. It needs the extra `rlaas-sdk[cli]`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Where the extra is missing, say what to install and exit with 2."""
    try:
        import click

        from rlaas_sdk.imports.command import import_command
        from rlaas_sdk.learning import learn_command
        from rlaas_sdk.redrive import redrive_command
        from rlaas_sdk.rollouts import rollout_command
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        sys.stderr.write(f"The rlaas command needs {error.name}: pip install 'rlaas-sdk[cli]'\n")
        sys.exit(2)

    verbs = [import_command, learn_command, redrive_command, rollout_command]
    commands = click.Group("rlaas", help="RLaaS from the command line.", commands=verbs)
    click.version_option(package_name="rlaas-sdk", prog_name="rlaas")(commands)
    commands(prog_name="rlaas")


if __name__ == "__main__":
    main()
