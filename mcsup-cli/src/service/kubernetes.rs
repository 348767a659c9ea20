//! Manifests for Kubernetes: Deployment, Service, PodDisruptionBudget, HorizontalPodAutoscaler.

use super::{CONTAINER_USER, Control, Plan, Refused, Tls, whole_seconds};

/// Time between the removal from the endpoints and SIGTERM: they propagate at the same time otherwise.
const PRE_STOP_SECONDS: u64 = 5;

/// The drain delay without an option that names one.
const DRAIN_DELAY_SECONDS: u64 = 5;

/// The number of pods of the Deployment and the autoscaler.
const REPLICAS: (u32, u32) = (2, 10);

/// The manifests, separated as YAML documents.
///
/// # Errors
/// The pool would not be reachable, has no TCP port, changes its user, or writes to the root file system; or the image
/// of a program is not named.
pub(crate) fn manifests(plan: &Plan, image: Option<&str>) -> Result<String, Refused> {
    let port = plan.port();
    if plan.has_listener && port.is_none() {
        return Err("a Service in Kubernetes needs a TCP port: -b 0.0.0.0:8000".to_owned());
    }
    let image = match image {
        Some(image) => image.to_owned(),
        // `mcsup service docker` prints the Dockerfile of an application's image, and none of a program.
        None if plan.is_program => {
            return Err("the image of a program depends on it: name it by --image IMAGE".to_owned());
        }
        None => format!("{}:latest", plan.image()),
    };
    if plan.changes_user() {
        return Err(format!("a pod runs as user {CONTAINER_USER}: leave --user and --group out"));
    }
    plan.refuse_files()?;
    let mut documents = vec![deployment(plan, &image, port)?];
    documents.extend(port.map(|port| service(plan, port)));
    documents.extend([disruption_budget(plan), autoscaler(plan)]);
    Ok(plan.head("# ", "kubernetes") + &documents.join("---\n"))
}

fn deployment(plan: &Plan, image: &str, port: Option<u16>) -> Result<String, Refused> {
    // No client connects to a pool without a listener: it needs no time for those on their way.
    let is_default = plan.times.drain_delay.is_none() && plan.has_listener;
    let pre_stop = if plan.has_listener { PRE_STOP_SECONDS } else { 0 };
    let delay = plan.times.drain_delay.map_or(DRAIN_DELAY_SECONDS, whole_seconds);
    let added = if is_default { vec![format!("--drain-delay={DRAIN_DELAY_SECONDS}")] } else { Vec::new() };
    let command = plan.in_container(&added)?;
    let grace = plan.times.stop_seconds() + pre_stop + if is_default { delay } else { 0 };
    let mut text = format!(
        "apiVersion: apps/v1
kind: Deployment
metadata:
{metadata}spec:
  # The autoscaler below changes it.
  replicas: {replicas}
  strategy:
    type: RollingUpdate
    rollingUpdate: {{maxUnavailable: 0, maxSurge: 1}}
  selector:
    matchLabels: {{{label}}}
  template:
    metadata:
      labels: {{{label}}}
    spec:
      # preStop, the drain delay and the graceful timeout, and 10 seconds.
      terminationGracePeriodSeconds: {grace}
      securityContext:
        runAsNonRoot: true
        runAsUser: {CONTAINER_USER}
        runAsGroup: {CONTAINER_USER}
        fsGroup: {CONTAINER_USER}
        seccompProfile: {{type: RuntimeDefault}}
      containers:
        - name: {name}
          image: {image}
          command:
",
        metadata = metadata(plan),
        replicas = REPLICAS.0,
        label = label(plan),
        name = json(&object_name(plan)),
        image = json(image),
    );
    for word in &command {
        text += &format!("            - {}\n", plain(word));
    }
    if let Some(port) = port {
        text += &format!("          ports:\n            - {{name: http, containerPort: {port}}}\n");
    }
    if let Some(path) = plan.control_in_container() {
        text += "          env:\n            # For `kubectl exec`: mcsup status, mcsup reload.\n";
        text += &format!("            - {{name: MCSUP_CONTROL_SOCKET, value: {}}}\n", plain(&path));
    }
    if port.is_some() {
        text += &probes(plan);
    }
    Ok(text + &resources(plan))
}

/// Probes and the hook before a stop.
fn probes(plan: &Plan) -> String {
    let probe = match plan.health_in_container() {
        Some(path) if plan.tls == Tls::Any => {
            format!("httpGet: {{path: {}, port: http, scheme: HTTPS}}", json(path))
        }
        Some(path) => format!("httpGet: {{path: {}, port: http}}", json(path)),
        None => "tcpSocket: {port: http}".to_owned(),
    };
    let tries = plan.times.boot_seconds().div_ceil(2).max(1);
    format!(
        "          # mcsup replaces workers that hang: there is no liveness probe, which would end all of them.
          startupProbe:
            {probe}
            periodSeconds: 2
            failureThreshold: {tries}
          readinessProbe:
            {probe}
            periodSeconds: 2
            failureThreshold: 1
          lifecycle:
            preStop:
              # New connections arrive until each node has removed the pod from its endpoints.
              exec: {{command: [\"sleep\", \"{PRE_STOP_SECONDS}\"]}}
"
    )
}

fn resources(plan: &Plan) -> String {
    let mut text = "          resources:
            requests: {cpu: 500m, memory: 256Mi}
            # `--workers auto` counts the processors of the limit.
            limits: {cpu: 2000m, memory: 512Mi}
          securityContext:
            readOnlyRootFilesystem: true
            allowPrivilegeEscalation: false
            capabilities: {drop: [\"ALL\"]}
          volumeMounts:
            # Large request bodies.
            - {name: tmp, mountPath: /tmp}
"
    .to_owned();
    let has_run =
        plan.control == Control::Free || plan.files.iter().any(|path| path.starts_with("/run/mcsup/"));
    if has_run {
        text += "            - {name: run, mountPath: /run/mcsup}\n";
    }
    text += "      volumes:\n        - {name: tmp, emptyDir: {}}\n";
    if has_run {
        text += "        - {name: run, emptyDir: {medium: Memory}}\n";
    }
    text
}

fn service(plan: &Plan, port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
{}spec:
  selector: {{{}}}
  ports:
    - {{name: http, port: {port}, targetPort: http}}
",
        metadata(plan),
        label(plan)
    )
}

fn disruption_budget(plan: &Plan) -> String {
    format!(
        "apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
{}spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{{}}}
",
        metadata(plan),
        label(plan)
    )
}

fn autoscaler(plan: &Plan) -> String {
    format!(
        "apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
{metadata}spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  minReplicas: {min}
  maxReplicas: {max}
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {{type: Utilization, averageUtilization: 70}}
  behavior:
    scaleDown: {{stabilizationWindowSeconds: 300}}
",
        metadata = metadata(plan),
        name = json(&object_name(plan)),
        min = REPLICAS.0,
        max = REPLICAS.1,
    )
}

fn metadata(plan: &Plan) -> String {
    format!("  name: {}\n  labels: {{{}}}\n", json(&object_name(plan)), label(plan))
}

fn label(plan: &Plan) -> String {
    format!("app.kubernetes.io/name: {}", json(&object_name(plan)))
}

/// A name by RFC 1035: letters, digits and hyphens, a letter first.
fn object_name(plan: &Plan) -> String {
    let dashed = plan.name.to_ascii_lowercase().replace(['_', '.'], "-");
    let name =
        if dashed.starts_with(|c: char| c.is_ascii_alphabetic()) { dashed } else { format!("app-{dashed}") };
    name.chars().take(63).collect::<String>().trim_end_matches('-').to_owned()
}

/// A word of a command or the value of a variable: `$$` is `$`, and `$(NAME)` a variable.
fn plain(text: &str) -> String {
    json(&text.replace('$', "$$"))
}

/// A string in double quotes: each in JSON is one in YAML.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::fixture::plan;
    use super::super::{Bind, Kind, Times};
    use super::*;

    const IMAGE: Option<&str> = Some("shop:1");

    fn value<'a>(text: &'a str, key: &str) -> &'a str {
        text.lines().find_map(|line| line.trim().strip_prefix(key)).unwrap_or_default().trim()
    }

    #[test]
    fn a_probe_speaks_tls_where_the_server_does_and_connects_only_where_it_would_need_a_certificate() {
        for (tls, expected) in [
            (Tls::Any, "httpGet: {path: \"/healthz\", port: http, scheme: HTTPS}"),
            (Tls::WithClientCertificates, "tcpSocket: {port: http}"),
        ] {
            let text = manifests(&Plan { tls, ..plan() }, IMAGE).unwrap();
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_pod_has_the_time_for_its_hook_its_delay_and_its_drain() {
        let text = manifests(&plan(), IMAGE).unwrap();
        assert!(text.contains("- \"--drain-delay=5\"\n"), "{text}");
        assert_eq!(value(&text, "terminationGracePeriodSeconds:"), "50");
        let times = Times { drain_delay: Some(Duration::from_secs(20)), ..plan().times };
        let text = manifests(&Plan { times, ..plan() }, IMAGE).unwrap();
        assert!(!text.contains("\"--drain-delay"), "{text}");
        assert_eq!(value(&text, "terminationGracePeriodSeconds:"), "65");
    }

    #[test]
    fn a_program_is_ready_when_its_port_accepts() {
        let text = manifests(&Plan { is_program: true, ..plan() }, IMAGE).unwrap();
        assert!(text.contains("readinessProbe:\n            tcpSocket: {port: http}"), "{text}");
        assert!(!text.contains("--health-path"), "{text}");
    }

    #[test]
    fn a_program_has_no_image_but_the_one_that_is_named() {
        let refused = manifests(&Plan { is_program: true, ..plan() }, None).unwrap_err();
        assert!(refused.contains("--image IMAGE"), "{refused}");
    }

    #[test]
    fn a_program_without_a_listener_has_no_probe_no_port_and_no_service() {
        let plan = Plan { is_program: true, has_listener: false, binds: Vec::new(), ..plan() };
        let text = manifests(&plan, IMAGE).unwrap();
        for absent in ["Probe:", "preStop:", "drain-delay", "containerPort", "kind: Service\n", "--bind"] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
        assert!(
            text.contains("kind: Deployment\n") && text.contains("kind: HorizontalPodAutoscaler\n"),
            "{text}"
        );
    }

    #[test]
    fn a_pool_without_a_tcp_port_is_refused() {
        let binds = vec![Bind::Unix(Kind::Stream, "/run/a.sock".to_owned())];
        assert!(manifests(&Plan { binds, ..plan() }, IMAGE).is_err());
    }

    #[test]
    fn a_pod_that_could_not_start_is_refused_with_the_reason() {
        let text = |text: &str| text.to_owned();
        for (plan, reason) in [
            (Plan { user: Some(text("www")), ..plan() }, "leave --user and --group out"),
            (Plan { group: Some(text("www")), ..plan() }, "leave --user and --group out"),
            (Plan { files: vec![text("run/app.pid")], ..plan() }, "run/app.pid: user 10001"),
            (Plan { files: vec![text("/app/app.log")], ..plan() }, "/app/app.log: user 10001"),
        ] {
            let refused = manifests(&plan, IMAGE).unwrap_err();
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn a_file_below_run_has_its_volume() {
        let files = vec!["/run/mcsup/app.pid".to_owned()];
        let text = manifests(&Plan { files, control: Control::Off, ..plan() }, IMAGE).unwrap();
        assert!(text.contains("mountPath: /run/mcsup}") && text.contains("{name: run, emptyDir"), "{text}");
    }

    #[test]
    fn a_dollar_begins_no_variable() {
        let words = ["-e", "A=a$$b$(HOST)", "a:b"].map(str::to_owned).to_vec();
        let control = Control::At("/tmp/$x.ctl".to_owned());
        let text = manifests(&Plan { words, control, ..plan() }, IMAGE).unwrap();
        assert!(text.contains("- \"A=a$$$$b$$(HOST)\"\n"), "{text}");
        assert!(text.contains("value: \"/tmp/$$x.ctl\"}"), "{text}");
    }

    #[test]
    fn without_an_option_the_image_has_the_name_of_the_service() {
        let text = manifests(&Plan { name: "My_Shop".to_owned(), ..plan() }, None).unwrap();
        assert_eq!(value(&text, "image:"), "\"my_shop:latest\"");
    }

    #[test]
    fn objects_have_names_that_kubernetes_accepts() {
        for (name, expected) in [("My_Shop.web", "my-shop-web"), ("3d", "app-3d")] {
            assert_eq!(object_name(&Plan { name: name.to_owned(), ..plan() }), expected);
        }
        let long = Plan { name: "a".repeat(62) + "-b", ..plan() };
        assert_eq!(object_name(&long), "a".repeat(62));
    }
}
