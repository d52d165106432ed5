"""Compares the states and edges that TLC finds with those of the executable form in Rust."""
import re
import shutil
import subprocess

# Scopes: module, nodes, terms, entries, crashes, and what the example of the Rust form calls it.
SCOPES = [
    ("DurableRaft", 2, 2, 1, 1, "coarse"),
    ("DurableRaft", 2, 2, 2, 1, ""),
    ("DurableRaftSnapshots", 2, 2, 1, 1, "snapshots"),
]
PINS = "crates/duraft-sim/tests/spec.rs"

TOKEN = re.compile(r'\s*(<<|>>|\|->|:>|@@|/\\|[\[\]{}(),=]|"[^"]*"|\w+)')


class Reader:
    """Reads a TLA+ value: numbers, names, strings, records, functions, sequences, sets."""

    def __init__(self, text):
        self.tokens = TOKEN.findall(text)
        self.at = 0

    def peek(self):
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, wanted=None):
        token = self.tokens[self.at]
        assert wanted in (None, token), (wanted, self.tokens[self.at - 3:self.at + 3])
        self.at += 1
        return token

    def many(self, end):
        values = []
        while self.peek() != end:
            values.append(self.value())
            if self.peek() == ",":
                self.take()
        self.take(end)
        return values

    def value(self):
        token = self.take()
        if token == "<<":
            return self.many(">>")
        if token == "{":
            return self.many("}")
        if token == "[":
            record = {}
            while self.peek() != "]":
                key = self.take()
                self.take("|->")
                record[key] = self.value()
                if self.peek() == ",":
                    self.take()
            self.take("]")
            return record
        if token == "(":
            function = {}
            while True:
                key = self.value()
                self.take(":>")
                function[key] = self.value()
                if self.take() == ")":
                    return function
        return int(token) if token.isdigit() else token.strip('"')

    def state(self):
        variables = {}
        while self.peek() == "/\\":
            self.take()
            name = self.take()
            self.take("=")
            variables[name] = self.value()
        return variables


def words(state):
    """A state as the Rust form describes it."""
    log = lambda l: "[" + " ".join(map(str, l)) + "]"
    record = lambda r: f"{r['t']},{r['v']},{log(r['l'])}"
    text = ""
    for i in sorted(state["n"]):
        node, durable, writes = state["n"][i], state["d"][i], state["q"][i]
        text += f"{i}:{record(node)},{node['role']},{node['ver']},{node['ci']};{record(durable)};"
        text += "/".join(map(record, writes)) + "|"
    files = ""
    for i in sorted(state.get("file", {})):
        starts = "/".join(map(str, state["qs"][i]))
        files += f"#{state['ds'][i]};{starts};{log(state['file'][i])};{log(state['fw'][i])}"
    said = []
    for m in state["msgs"]:
        if m["y"] == "v":
            said.append(f"v {m['t']} {m['f']} {m['d']}")
        elif m["y"] == "rv":
            said.append(f"rv {m['t']} {m['f']} {m['lt']} {m['ln']}")
        elif m["y"] == "ae":
            said.append(f"ae {m['t']} {m['f']} {log(m['l'])}")
        else:
            said.append(f"a {m['t']} {m['f']} {m['n']}")
    committed = [f"{c['t']} {log(c['l'])}" for c in state["committed"]]
    return text + ",".join(sorted(said)) + "|" + ",".join(sorted(committed)) + f"|{state['crashes']}" + files


def graph(dot):
    """States and edges of a dot file."""
    names, states, edges = {}, set(), set()
    unescape = lambda label: label.replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\")
    lines = dot.splitlines()
    for line in lines:
        node = re.match(r'(-?\d+) \[label="((?:[^"\\]|\\.)*)"', line)
        if node:
            names[node.group(1)] = words(Reader(unescape(node.group(2))).state())
    states = set(names.values())
    for line in lines:
        edge = re.match(r'(-?\d+) -> (-?\d+) \[label="(\w+)"', line)
        if edge:
            edges.add(f"{names[edge.group(1)]} {edge.group(3)} {names[edge.group(2)]}")
    return states, edges


def sum_of(lines):
    """FNV-1a over all lines, added up, as in the Rust form."""
    total = 0
    for line in lines:
        value = 0xCBF29CE484222325
        for byte in line.encode():
            value = ((value ^ byte) * 0x100000001B3) % 2**64
        total = (total + value) % 2**64
    return total


def check(run, config, scope, jar, scratch, args, root):
    """True if both forms have the same states and edges, and the numbers that the Rust test pins."""
    well = True
    pins = (root / PINS).read_text().replace("_", "")
    for module, nodes, terms, entries, crashes, kind in SCOPES:
        coarse = str(kind == "coarse").upper()
        where = scope(nodes, MaxTerm=terms, MaxLen=entries, MaxCrash=crashes, Coarse=coarse)
        text = config(module, where).replace("SYMMETRY Sy\n", "")
        work, out, seconds = run(jar, scratch, module, text, args, ["-dump", "dot,actionlabels", "graph.dot"])
        dots = list(work.glob("graph*.dot"))
        if not dots:
            print(out[-2000:])
            return False
        theirs = graph(dots[0].read_text())
        shutil.rmtree(work, ignore_errors=True)
        command = ["cargo", "run", "--release", "--quiet", "-p", "duraft-sim", "--example", "spec", "--", "graph"]
        command += [str(x) for x in (nodes, terms, entries, crashes)] + ([kind] if kind else [])
        lines = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
        ours = ({l[2:] for l in lines if l[0] == "S"}, {l[2:] for l in lines if l[0] == "E"})
        for what, mine, tlc in zip(("states", "edges"), ours, theirs):
            same = mine == tlc
            number = f"0x{sum_of(tlc):016x}"
            pinned = number in pins and f"({len(tlc)}, {number})" in pins
            well &= same and pinned
            print(f"compare {nodes} nodes, {terms} terms, {entries} entries, {crashes} crash{', ' + kind if kind else ''}: "
                  f"{len(tlc)} {what} {number}, {'equal' if same else 'NOT EQUAL'}, "
                  f"{'pinned' if pinned else 'NOT PINNED'} ({seconds:.0f} s)")
            for line in sorted(mine - tlc)[:3]:
                print("  only in Rust:", line)
            for line in sorted(tlc - mine)[:3]:
                print("  only in TLA+:", line)
    return well
