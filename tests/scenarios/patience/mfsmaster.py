#!/usr/bin/python3
"""A master that holds its lock and answers INFO. /etc/mfs/stand-in has the release as three hexadecimal numbers, the length of
the answer, the place of the version in it (-1: none), and how many seconds a stop takes."""
import fcntl, os, signal, socket, struct, sys, threading, time

words = open('/etc/mfs/stand-in').read().split()
release = bytes.fromhex(words[0] + words[1] + words[2])
length, place, stop = (int(word) for word in words[3:])
if '-v' in sys.argv:
    sys.exit(print(f'version: {release[1]}.{release[2]}.{release[3] // 2}-1 ; build: 1'))
ready, listening = os.pipe()
if os.fork():
    sys.exit(0 if os.read(ready, 1) else 1)
os.setsid()
lock = open('/var/lib/mfs/.mfsmaster.lock', 'w')
fcntl.lockf(lock, fcntl.LOCK_EX)
body = bytearray(release + bytes(length - len(release)))
if place >= 0:
    body[place:place + 8] = struct.pack('>Q', 1 << 40)


def answer(client):
    while client.recv(8):
        client.sendall(struct.pack('>II', 511, length) + body)


def end(*_):
    time.sleep(stop)
    os._exit(0)


signal.signal(signal.SIGTERM, end)
door = socket.create_server(('', 9421))
os.write(listening, b'!')
for stream in (2, 1, 0):
    os.dup2(os.open('/dev/null', os.O_RDWR), stream)
while True:
    client, _ = door.accept()
    threading.Thread(target=answer, args=[client], daemon=True).start()
