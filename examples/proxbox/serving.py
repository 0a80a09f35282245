"""What `testindex` and `devrepo` share: an address that containers reach, and a server that is there as long as a command runs."""
import http.server, ipaddress, json, os, subprocess, sys, threading


def bridge(who):
    """The host's address on Docker's own bridge: its gateway, which is the subnet's first address where the engine names none."""
    answer = subprocess.run(["docker", "network", "inspect", "bridge", "--format", "{{json (index .IPAM.Config 0)}}"], capture_output=True, text=True)
    if answer.returncode:
        sys.exit(f"{who}: the address of Docker's bridge is unknown, pass --address: {answer.stderr.strip()}")
    config = json.loads(answer.stdout)
    return config.get("Gateway") or str(ipaddress.ip_network(config["Subnet"])[1])


def serve(who, handler, address, port, prefix, told, command):
    """Serves until Ctrl-C, or while the command runs; returns its exit code.

    `told` makes of the server's URL what the command is told by name: NAME in its environment with the prefix, {name} in its words."""
    server = http.server.ThreadingHTTPServer((address or bridge(who), port), handler)
    told = told(f"http://{server.server_address[0]}:{server.server_address[1]}")
    for name, value in told.items():
        print(f"{who}: {name} {value}", file=sys.stderr)
    if not command:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in told.items():
        command = [word.replace("{" + name + "}", value) for word in command]
    return subprocess.run(command, env=os.environ | {f"{prefix}_{name.upper()}": value for name, value in told.items()}).returncode
