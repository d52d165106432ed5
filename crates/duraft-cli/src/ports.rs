//! Loopback ports for nodes in processes of their own.

use std::io;
use std::net::{TcpListener, TcpStream};

/// Ports that the system gives to nobody else until this is dropped, while a node that names one can
/// listen there, and again after a restart. Each is kept by a connection to itself: the system gives
/// away no port that is in use, and lets who asks for it by number listen next to its connections.
pub(crate) struct ReservedPorts {
    addresses: Vec<String>,
    _connections: Vec<[TcpStream; 2]>,
}

impl ReservedPorts {
    pub(crate) fn new(count: usize) -> io::Result<ReservedPorts> {
        let mut ports = ReservedPorts {
            addresses: Vec::new(),
            _connections: Vec::new(),
        };
        for _ in 0..count {
            let listener = TcpListener::bind(("127.0.0.1", 0))?;
            let address = listener.local_addr()?;
            let connection = TcpStream::connect(address)?;
            ports._connections.push([connection, listener.accept()?.0]);
            ports.addresses.push(address.to_string());
        }
        Ok(ports)
    }

    /// Address and port of each, as text.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn reserved_ports_can_be_listened_on_again_and_again_and_are_given_to_nobody() {
        let ports = ReservedPorts::new(200).expect("free ports");
        let reserved: BTreeSet<&String> = ports.addresses().iter().collect();
        assert_eq!(reserved.len(), 200, "they differ");
        for _ in 0..3 {
            for address in ports.addresses() {
                let listener = TcpListener::bind(address).expect("nobody else has it");
                let client = TcpStream::connect(address).expect("it listens");
                drop((listener.accept().expect("a connection"), client));
            }
        }
        // Of ports that are merely closed again, more than ten would come.
        for _ in 0..1000 {
            let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
            let given = listener.local_addr().expect("bound").to_string();
            assert!(!reserved.contains(&given), "{given} was given away");
        }
    }
}
