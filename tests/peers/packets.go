// What Go does with packets and descriptors: the peer of tests/peers/test_go.py.
//
//	packets client NETWORK ADDR N   sends N datagrams, the first one empty, on a connected socket and
//	                                on one that is not; checks each echo and where it comes from
//	packets descriptors ADDR        passes the reading end of a pipe over a Unix socket, and writes
//	                                into the one that it gets
package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

func main() {
	switch {
	case len(os.Args) == 5 && os.Args[1] == "client":
		n, err := strconv.Atoi(os.Args[4])
		check(err)
		client(os.Args[2], os.Args[3], n)
	case len(os.Args) == 3 && os.Args[1] == "descriptors":
		descriptors(os.Args[2])
	default:
		fmt.Fprintln(os.Stderr, "usage: packets client NETWORK ADDR N | packets descriptors ADDR")
		os.Exit(2)
	}
}

func client(network, addr string, n int) {
	conn, packets, to := sockets(network, addr)
	deadline := time.Now().Add(30 * time.Second)
	check(errors.Join(conn.SetDeadline(deadline), packets.SetDeadline(deadline)))
	buf := make([]byte, 65536)
	for i := 0; i < n; i++ {
		sent := bytes.Repeat([]byte{byte(i)}, i*i%5000)
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
			fmt.Fprintln(os.Stderr, "datagram", i, "is from", from)
			os.Exit(1)
		}
	}
	fmt.Println("ok", n)
}

// sockets returns one that is connected, one that is not, and whom both talk to.
func sockets(network, addr string) (net.Conn, net.PacketConn, net.Addr) {
	if network == "unixgram" {
		remote := &net.UnixAddr{Name: addr, Net: network}
		conn, err := net.DialUnix(network, &net.UnixAddr{Name: addr + ".1", Net: network}, remote)
		check(err)
		packets, err := net.ListenPacket(network, addr+".2")
		check(err)
		return conn, packets, remote
	}
	remote, err := net.ResolveUDPAddr(network, addr)
	check(err)
	conn, err := net.DialUDP(network, nil, remote)
	check(err)
	packets, err := net.ListenUDP(network, &net.UDPAddr{IP: remote.IP})
	check(err)
	return conn, packets, remote
}

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
	fmt.Fprint(theirs, "Go has got the ", string(buf[:n]))
	theirs.Close()
	fmt.Println("ok", len(messages), len(fds))
}

func compare(i int, sent, got []byte) {
	if !bytes.Equal(sent, got) {
		fmt.Fprintln(os.Stderr, "datagram", i, "differs")
		os.Exit(1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
