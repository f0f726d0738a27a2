// Echo in Go's own net package: the peer that gopoll's tests talk to.
//
//	echo server NETWORK ADDR       listens, prints the address, echoes until killed
//	echo client NETWORK ADDR N     sends N messages of changing sizes, checks each echo
//	echo descriptors ADDR          passes a descriptor over a Unix socket and gets one back
//
// NETWORK is tcp, unix, unixpacket, udp or unixgram. An ADDR of udp and tcp may have port 0.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	switch {
	case len(os.Args) == 4 && os.Args[1] == "server":
		if isPacket(os.Args[2]) {
			packetServer(os.Args[2], os.Args[3])
		} else {
			server(os.Args[2], os.Args[3])
		}
	case len(os.Args) == 5 && os.Args[1] == "client":
		n, err := strconv.Atoi(os.Args[4])
		check(err)
		if isPacket(os.Args[2]) {
			packetClient(os.Args[2], os.Args[3], n)
		} else {
			client(os.Args[2], os.Args[3], n)
		}
	case len(os.Args) == 3 && os.Args[1] == "descriptors":
		descriptors(os.Args[2])
	default:
		fmt.Fprintln(os.Stderr, "usage: echo server NETWORK ADDR | client NETWORK ADDR N | descriptors ADDR")
		os.Exit(2)
	}
}

func isPacket(network string) bool {
	return strings.HasPrefix(network, "udp") || network == "unixgram"
}

// message returns what is sent as the i-th of a client.
func message(i int) []byte {
	return bytes.Repeat([]byte{byte(i)}, 1+i*i%20000)
}

func server(network, addr string) {
	ln, err := net.Listen(network, addr)
	check(err)
	fmt.Println(ln.Addr())
	for {
		conn, err := ln.Accept()
		check(err)
		go func() {
			defer conn.Close()
			io.Copy(conn, conn)
		}()
	}
}

func client(network, addr string, n int) {
	conn, err := net.Dial(network, addr)
	check(err)
	for i := 0; i < n; i++ {
		sent := message(i)
		_, err = conn.Write(sent)
		check(err)
		got := make([]byte, len(sent))
		_, err = io.ReadFull(conn, got)
		check(err)
		compare(i, sent, got)
	}
	check(conn.(interface{ CloseWrite() error }).CloseWrite())
	rest, err := io.ReadAll(conn)
	check(err)
	fmt.Println("ok", n, len(rest))
}

func packetServer(network, addr string) {
	conn, err := net.ListenPacket(network, addr)
	check(err)
	fmt.Println(conn.LocalAddr())
	buf := make([]byte, 65536)
	for {
		n, from, err := conn.ReadFrom(buf)
		check(err)
		_, err = conn.WriteTo(buf[:n], from)
		check(err)
	}
}

// packetClient sends an empty datagram as well as the others, connected and unconnected.
func packetClient(network, addr string, n int) {
	var conn net.Conn
	var packets net.PacketConn
	var to net.Addr
	if network == "unixgram" {
		local := &net.UnixAddr{Name: addr + ".client", Net: network}
		remote := &net.UnixAddr{Name: addr, Net: network}
		connected, err := net.DialUnix(network, local, remote)
		check(err)
		defer os.Remove(local.Name)
		other, err := net.ListenUnixgram(network, &net.UnixAddr{Name: addr + ".other", Net: network})
		check(err)
		defer other.Close()
		conn, packets, to = connected, other, remote
	} else {
		remote, err := net.ResolveUDPAddr(network, addr)
		check(err)
		connected, err := net.DialUDP(network, nil, remote)
		check(err)
		other, err := net.ListenUDP(network, &net.UDPAddr{IP: remote.IP})
		check(err)
		conn, packets, to = connected, other, remote
	}
	deadline := time.Now().Add(30 * time.Second)
	check(errors.Join(conn.SetDeadline(deadline), packets.SetDeadline(deadline)))
	buf := make([]byte, 65536)
	for i := 0; i < n; i++ {
		sent := message(i)
		if i == 0 {
			sent = nil
		}
		_, err := conn.Write(sent)
		check(err)
		got, err := conn.Read(buf)
		check(err)
		compare(i, sent, buf[:got])
		_, err = packets.WriteTo(sent, to)
		check(err)
		got, from, err := packets.ReadFrom(buf)
		check(err)
		compare(i, sent, buf[:got])
		if from.String() != to.String() {
			fmt.Fprintln(os.Stderr, "from", from)
			os.Exit(1)
		}
	}
	fmt.Println("ok", n)
}

// descriptors sends the reading end of a pipe, and writes into one that it is sent.
func descriptors(addr string) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: addr, Net: "unix"})
	check(err)
	r, w, err := os.Pipe()
	check(err)
	_, _, err = conn.WriteMsgUnix([]byte("reading end"), syscall.UnixRights(int(r.Fd())), nil)
	check(err)
	r.Close()
	fmt.Fprint(w, "from Go")
	w.Close()

	buf, oob := make([]byte, 64), make([]byte, 64)
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	check(err)
	messages, err := syscall.ParseSocketControlMessage(oob[:oobn])
	check(err)
	fds, err := syscall.ParseUnixRights(&messages[0])
	check(err)
	theirs := os.NewFile(uintptr(fds[0]), "theirs")
	fmt.Fprint(theirs, "Go has got ", string(buf[:n]))
	theirs.Close()
	fmt.Println("ok", len(messages), len(fds))
}

func compare(i int, sent, got []byte) {
	if !bytes.Equal(sent, got) {
		fmt.Fprintln(os.Stderr, "echo", i, "differs")
		os.Exit(1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
