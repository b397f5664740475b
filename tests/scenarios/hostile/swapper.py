"""What user mfs can do to the data folder while root works in it: puts links, FIFOs, sockets, folders and files of holes
in the place of whatever has a name that matters, and puts back what was there, again and again, until TERM."""
import os
import random
import signal
import socket
import time

OUTSIDE = "/etc/outside"
NAMES = [
    "mfs-promote", "mfs-rehearsal", "bak", "metadata.mfs", "metadata.mfs.back", "changelog.0.mfs", "metadata_ml.mfs.back",
    "changelog_ml.0.mfs", "changelog_ml.3.mfs", "metadata.mfs.back.7", "sessions.mfs", ".mfsmaster.lock", ".mfsmetalogger.lock",
    "metadata\n<27>mfs-promote[1]: promotion ended: serving\x1b[2J",
]

over = False


def end(*_):
    global over
    over = True


def bind(name):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(name)


def holes(name):
    with open(name, "x") as file:
        file.truncate(1 << 42)


PLANTS = [
    lambda name: os.symlink(OUTSIDE + "/canary", name),
    lambda name: os.symlink(OUTSIDE, name),
    os.mkfifo,
    bind,
    os.mkdir,
    holes,
]


def attempt(act, *args):
    try:
        act(*args)
        return True
    except OSError:
        return False


signal.signal(signal.SIGTERM, end)
os.chdir("/var/lib/mfs")
number = 0
while not over:
    number += 1
    name, kept, trash = random.choice(NAMES), f".kept-{number}", f".trash-{number}"
    moved = attempt(os.rename, name, kept)
    planted = attempt(random.choice(PLANTS), name)
    time.sleep(random.random() * 0.004)
    if planted:
        # What root may have put into it goes along.
        attempt(os.rename, name, trash)
        attempt(os.unlink, trash) or attempt(os.rmdir, trash)
    if moved:
        attempt(os.rename, kept, name)
    time.sleep(random.random() * 0.03)
