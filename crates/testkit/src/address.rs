//! Addresses that tests can count on.

use std::net::SocketAddr;

use parking_lot::Mutex;
use tokio::net::TcpSocket;

/// An address of loopback on which nobody listens, and on which the test may. The system gives its port to nobody else as long
/// as the process lives: it stays taken by a socket that does not listen, beside which another one may.
///
/// # Panics
///
/// When there is no port left.
pub fn unused_address() -> SocketAddr {
    static TAKEN: Mutex<Vec<TcpSocket>> = Mutex::new(Vec::new());
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("others may listen there");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
    let address = socket.local_addr().expect("its address");
    TAKEN.lock().push(socket);
    address
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn nobody_listens_until_the_test_does_and_again_when_it_does_no_more() {
        let address = unused_address();
        for _ in 0..2 {
            assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
            let listener = TcpListener::bind(address).unwrap();
            assert!(TcpStream::connect(address).is_ok());
            drop(listener);
        }
        assert_ne!(unused_address(), address);
    }
}
