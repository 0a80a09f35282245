//! Parses ports in Compose's short and long form, and the names of a process's ports.

use super::Port;
use crate::language::shape::name::NameRule;

/// Problem with a port, and advice on how to write it.
pub struct Unfit {
    pub problem: String,
    pub help: &'static str,
}

const HOW: &str =
    "write a container port such as `8080`, `127.0.0.1:80:8080/tcp`, or `{ target: 8080 }`";
/// Longest range of ports. A longer one is considered a mistake.
const MAX_RANGE: u16 = 1000;

/// Parses `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, where HOST and CONTAINER are each a port or a range.
pub fn short(text: &str) -> Result<Vec<Port>, Unfit> {
    let unfit = |why: &str| Unfit {
        problem: format!("`{text}` is no port: {why}"),
        help: HOW,
    };
    let (addresses, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp") {
        return Err(unfit("the protocol is `tcp` or `udp`"));
    }
    let (host, container) = match addresses.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, addresses),
    };
    let (first, last) =
        range(container).ok_or_else(|| unfit("ports are numbers from 1 to 65535"))?;
    if last - first > MAX_RANGE {
        return Err(unfit("the range is too long"));
    }
    let published = host.map(|host| host.rsplit(':').next().unwrap_or(host).to_owned());
    if published
        .as_deref()
        .is_some_and(|host| !host.is_empty() && range(host).is_none())
    {
        return Err(unfit("the host port is no number"));
    }
    Ok((first..=last)
        .map(|target| Port {
            target: Some(target),
            name: None,
            protocol: protocol.to_owned(),
            app_protocol: None,
            published: published.clone().filter(|host| !host.is_empty()),
        })
        .collect())
}

/// Parses the name of a process's port.
pub fn of_process(text: &str) -> Result<Port, Unfit> {
    if NameRule::Dotted.problem(text).is_some() {
        return Err(Unfit {
            problem: format!("`{text}` is no name of a port"),
            help: "a process's ports have names, such as `ports: [http]`; `${{ port.http }}` in `process` is the free port that was chosen",
        });
    }
    Ok(Port {
        target: None,
        name: Some(text.to_owned()),
        protocol: "tcp".into(),
        app_protocol: None,
        published: None,
    })
}

/// Parses a container port in the long form.
pub fn target(text: &str) -> Result<u16, Unfit> {
    match range(text) {
        Some((first, last)) if first == last => Ok(first),
        _ => Err(Unfit {
            problem: format!("`{text}` is no port"),
            help: HOW,
        }),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| -> Option<u16> {
        let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
        digits
            .then(|| text.parse().ok())
            .flatten()
            .filter(|port| *port > 0)
    };
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<(u16, String, Option<String>)>> {
        let ports = short(text).ok()?.into_iter();
        Some(
            ports
                .map(|port| (port.target.unwrap_or(0), port.protocol, port.published))
                .collect(),
        )
    }

    #[test]
    fn compose_s_short_forms_are_read() {
        let tcp =
            |target: u16, host: Option<&str>| (target, "tcp".to_owned(), host.map(str::to_owned));
        assert_eq!(read("8080"), Some(vec![tcp(8080, None)]));
        assert_eq!(read("80:8080"), Some(vec![tcp(8080, Some("80"))]));
        assert_eq!(read("127.0.0.1:80:8080"), Some(vec![tcp(8080, Some("80"))]));
        assert_eq!(read("[::1]:80:8080"), Some(vec![tcp(8080, Some("80"))]));
        assert_eq!(read("127.0.0.1::8080"), Some(vec![tcp(8080, None)]));
        assert_eq!(read("53/udp"), Some(vec![(53, "udp".into(), None)]));
        assert_eq!(
            read("3000-3001"),
            Some(vec![tcp(3000, None), tcp(3001, None)])
        );
        for text in [
            "", "http", "0", "70000", "80:x", "5-4", "80/sctp", "x:80", "1-60000",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
