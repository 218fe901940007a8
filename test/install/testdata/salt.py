"""Carries out a Salt state file where there is no Salt.

It renders the file as Salt does (Jinja, then YAML), knows the states and
arguments that ours use, refuses every other one, and does what Salt's
documentation says of them.

    python3 salt.py [--plan] STATE.sls PILLAR.sls ROOTS OS_FAMILY

ROOTS is the folder of salt://. It prints a line for each state that changed
something (with --plan: that there is) and "changed N" in the end. Services are
left to the test: the host has no systemd.
"""

import json
import os
import shutil
import subprocess
import sys

import jinja2
import yaml

KNOWN = {
    "file.managed": {"name", "source", "contents", "mode", "makedirs", "show_changes"},
    "file.serialize": {"name", "dataset", "serializer", "mode", "makedirs"},
    "file.absent": {"name"},
    "cmd.run": {"name"},
    "pkg.installed": {"name"},
    "pkg.removed": {"name"},
    "pkg.purged": {"name"},
    "service.running": {"name", "enable"},
}
REQUISITES = {"require", "require_in", "onchanges"}


class UniqueKeys(yaml.SafeLoader):
    """Refuses what Salt refuses: two states of one name."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(keys) != len(set(keys)):
            raise SystemExit(f"keys are there twice: {keys}")
        return super().construct_mapping(node, deep)


def render(path, **names):
    with open(path, encoding="utf-8") as source:
        env = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
        env.filters["json"] = json.dumps
        return yaml.load(env.from_string(source.read()).render(**names), UniqueKeys)


class Run:
    def __init__(self, states, roots, plan):
        self.roots, self.plan = roots, plan
        self.states, self.changed, self.done = {}, set(), set()
        for state_id, functions in states.items():
            for function, arguments in functions.items():
                merged = {"name": state_id}
                for argument in arguments:
                    merged.update(argument)
                unknown = set(merged) - KNOWN[function] - REQUISITES
                if unknown:
                    raise SystemExit(f"{state_id}: {function} has no {unknown}")
                self.states[(function.split(".")[0], state_id)] = (function, merged)
        for key, (_, arguments) in self.states.items():
            for other in self.references(arguments, "require_in"):
                self.states[other][1].setdefault("require", []).append({key[0]: key[1]})

    def references(self, arguments, kind):
        out = []
        for reference in arguments.get(kind, []):
            for key in reference.items():
                if key not in self.states:
                    raise SystemExit(f"{kind}: there is no {key}")
                out.append(key)
        return out

    def all(self):
        for key in self.states:
            self.one(key)
        print("changed", len(self.changed))

    def one(self, key):
        if key in self.done:
            return
        self.done.add(key)
        function, arguments = self.states[key]
        causes = self.references(arguments, "onchanges")
        for other in self.references(arguments, "require") + causes:
            self.one(other)
        if causes and not self.changed.intersection(causes):
            return
        wanted = {k: v for k, v in arguments.items() if k not in REQUISITES}
        if self.plan or getattr(self, function.replace(".", "_"))(**wanted):
            self.changed.add(key)
            print(function, json.dumps(wanted))

    def write(self, name, content, mode, makedirs):
        try:
            with open(name, "rb") as old:
                if old.read() == content and os.stat(name).st_mode & 0o7777 == int(mode, 8):
                    return False
        except FileNotFoundError:
            if makedirs:
                os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as new:
            new.write(content)
        os.chmod(name, int(mode, 8))
        return True

    def file_managed(self, name, mode, source=None, contents=None, makedirs=False, show_changes=True):
        if source is None:
            # Salt ends contents with a line break.
            return self.write(name, contents.rstrip("\n").encode() + b"\n", mode, makedirs)
        with open(os.path.join(self.roots, source.removeprefix("salt://")), "rb") as f:
            return self.write(name, f.read(), mode, makedirs)

    def file_serialize(self, name, dataset, serializer, mode, makedirs=False):
        if serializer != "json":
            raise SystemExit(f"{name}: serializer {serializer}")
        text = json.dumps(dataset, indent=2, sort_keys=True) + "\n"
        return self.write(name, text.encode(), mode, makedirs)

    def file_absent(self, name):
        if not os.path.lexists(name):
            return False
        if os.path.isdir(name) and not os.path.islink(name):
            shutil.rmtree(name)
        else:
            os.remove(name)
        return True

    def cmd_run(self, name):
        subprocess.run(name, shell=True, check=True)
        return True

    def package(self, name, verb, there):
        status = subprocess.run(["dpkg-query", "-W", "-f=${db:Status-Status}", name], capture_output=True, text=True).stdout
        if (status == "installed") == there:
            return False
        subprocess.run(["apt-get", "-q", "-y", verb, name], check=True)
        return True

    def pkg_installed(self, name):
        return self.package(name, "install", True)

    def pkg_removed(self, name):
        return self.package(name, "remove", False)

    def pkg_purged(self, name):
        return self.package(name, "purge", False)

    def service_running(self, name, enable):
        return False


def main():
    arguments = sys.argv[1:]
    plan = arguments[0] == "--plan"
    state, pillar_file, roots, family = arguments[plan:]
    pillar = render(pillar_file)
    states = render(state, grains={"os_family": family}, salt={"pillar.get": pillar.get})
    Run(states, roots, plan).all()


main()
