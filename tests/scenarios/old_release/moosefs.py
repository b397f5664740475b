#!/usr/bin/python3
"""Stands in for the programs of MooseFS 1.6, which no distribution has any more, and writes down how it is called.

What it does wrong, 1.6 does wrong: mfsmetarestore 1.6.27 passes over a log without two line ends, ends with 0 where it
could write nothing, and leaves what it writes to the caller's user and umask; mfsmaster without a verb restarts.
"""
import fcntl, os, re, signal, socket, struct, sys, time

DATA = "/var/lib/mfs"
program, args = os.path.basename(sys.argv[0]), sys.argv[1:]
with open("/var/lib/lab/calls", "a") as calls:
    calls.write(" ".join([program, *args]) + f" as {os.getuid()}\n")
fault = open("/var/lib/lab/fault").read().strip() if os.path.exists("/var/lib/lab/fault") else ""


def metarestore():
    options = dict(zip(args[0:4:2], args[1:4:2]))
    logs = args[4:]
    if fault == "fails":
        sys.exit("1234: error: 1 (Operation not permitted)")
    if fault == "hangs":
        time.sleep(1000)
    image = bytearray(open(options["-m"], "rb").read())
    version = struct.unpack(">Q", image[12:20])[0]
    for log in logs:
        text = open(log, "rb").read()
        lines = text.split(b"\n")
        if text and lines.pop():
            sys.exit(f"{log}: incomplete last line")
        if len(lines) < 2:
            continue
        for line in lines:
            number = int(re.match(rb"(\d+): \d+\|\w+\(", line).group(1))
            if number < version:
                continue
            if number > version:
                sys.exit(f"hole in change files (entry {number})")
            version += 1
    image[12:20] = struct.pack(">Q", version)
    with open(options["-o"], "wb") as out:
        out.write(b"" if fault == "full" else image)
    print(f"store metadata into file: {options['-o']}")


def master():
    if args == ["-v"]:
        print("version: 1.6.27")
        return
    if args[-1:] != ["start"] or "-a" in args:
        sys.exit("usage: mfsmaster [-vdu] [-t locktimeout] [-c cfgfile] [start|stop|restart|reload]")
    os.chdir(DATA)
    if not os.path.exists("metadata.mfs"):
        sys.exit("can't open metadata file: metadata.mfs: ENOENT")
    os.rename("metadata.mfs", "metadata.mfs.back")
    ready, done = os.pipe()
    if os.fork():
        os.close(done)
        sys.exit(0 if os.read(ready, 1) else 1)
    os.setsid()
    lock = open(".mfsmaster.lock", "w")
    fcntl.lockf(lock, fcntl.LOCK_EX)
    listener = socket.create_server(("", 9421))
    signal.signal(signal.SIGTERM, lambda *_: (os.rename("metadata.mfs.back", "metadata.mfs"), os._exit(0)))
    os.write(done, b"1")
    for number in range(3):
        os.dup2(os.open("/dev/null", os.O_RDWR), number)
    while True:
        client, _ = listener.accept()
        client.recv(8)
        body = bytes([0, 1, 6, 27]).ljust(76, b"\0")
        client.sendall(struct.pack(">II", 511, len(body)) + body)


master() if program == "mfsmaster" else metarestore()
