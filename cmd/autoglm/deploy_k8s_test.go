package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/open-autoglm/autoglm/cluster/pki"
)

// k8sEnv is the environment of a pod of the set, as the kubelet would make it.
func k8sEnv(t *testing.T, c k8sContainer, pod, ip string) map[string]string {
	t.Helper()
	env := map[string]string{}
	for _, e := range c.Env {
		switch from := e.ValueFrom.FieldRef.FieldPath; from {
		case "":
			env[e.Name] = e.Value
		case "metadata.name":
			env[e.Name] = pod
		case "status.podIP":
			env[e.Name] = ip
		case "metadata.labels['topology.kubernetes.io/zone']":
			env[e.Name] = "" // what a label that is not there gives
		default:
			t.Fatalf("%s: what is %s?", e.Name, from)
		}
	}
	return env
}

// expand replaces $(NAME) as the kubelet does.
func expand(t *testing.T, s string, env map[string]string) string {
	return regexp.MustCompile(`\$\((\w+)\)`).ReplaceAllStringFunc(s, func(ref string) string {
		v, ok := env[ref[2:len(ref)-1]]
		require.True(t, ok, ref)
		return v
	})
}

func TestDeployKubernetes(t *testing.T) {
	k := readKubernetes(t)
	set := k.set.Spec
	pod := set.Template.Spec
	c := pod.Containers[0]

	preStop := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	require.Positive(t, preStop, "the Service must forget the pod before it drains")
	grace := time.Duration(pod.TerminationGracePeriodSeconds)*time.Second - preStop
	env := k8sEnv(t, c, "autoglm-0", "10.0.0.7")
	cfg := settingsOf(t, c.Args, env)
	checkNode(t, cfg, "/var/lib/autoglm", "/etc/autoglm/identity", grace)
	require.Equal(t, set.Replicas, cfg.Cluster.Expect)
	require.Equal(t, "10.0.0.7", cfg.Cluster.Advertise)

	require.Equal(t, "Parallel", set.PodManagementPolicy, "in order, the first pod would wait for ever for the others to become ready")
	require.GreaterOrEqual(t, set.MinReadySeconds, 10)
	require.Equal(t, "RollingUpdate", set.UpdateStrategy.Type)
	require.Equal(t, "Retain", set.Retention.WhenDeleted)
	require.Equal(t, "Retain", set.Retention.WhenScaled)

	t.Run("labels and names", func(t *testing.T) {
		own := set.Template.Metadata.Labels
		require.Equal(t, own, set.Selector.MatchLabels)
		require.Equal(t, own, k.budget.Spec.Selector.MatchLabels)
		require.Equal(t, own, k.policy.Spec.PodSelector.MatchLabels)
		require.Len(t, pod.TopologySpreadConstraints, 2)
		for _, s := range pod.TopologySpreadConstraints {
			require.Equal(t, own, s.LabelSelector.MatchLabels)
			require.Equal(t, 1, s.MaxSkew)
		}
		require.Len(t, k.services, 2)
		for _, s := range k.services {
			require.Equal(t, own, s.Spec.Selector)
		}
		require.Equal(t, 1, k.budget.Spec.MaxUnavailable, "two of three would end the majority")
		peers := k.services[set.ServiceName]
		require.NotNil(t, peers, "serviceName names a Service")
		require.Equal(t, "None", peers.Spec.ClusterIP)
		require.True(t, peers.Spec.PublishNotReadyAddresses, "nodes find each other before they are ready")
		require.Equal(t, []string{fmt.Sprintf("%s:%d", set.ServiceName, portOf(t, cfg.Cluster.Listen))}, cfg.Cluster.Join)
		require.NotNil(t, pod.EnableServiceLinks)
		require.False(t, *pod.EnableServiceLinks, "AUTOGLM_PORT is no setting")
	})

	t.Run("ports", func(t *testing.T) {
		gossip := portOf(t, cfg.Cluster.Listen)
		ports := map[string]string{}
		for _, p := range c.Ports {
			ports[p.Name] = fmt.Sprintf("%d/%s", p.ContainerPort, p.Protocol)
		}
		require.Equal(t, map[string]string{"http": fmt.Sprintf("%d/TCP", portOf(t, cfg.HTTP.Listen)), "gossip": fmt.Sprintf("%d/TCP", gossip),
			"gossip-udp": fmt.Sprintf("%d/UDP", gossip), "raft": fmt.Sprintf("%d/TCP", gossip+1), "actors": fmt.Sprintf("%d/TCP", gossip+2)}, ports)
		for name, s := range k.services {
			for _, p := range s.Spec.Ports {
				require.Equal(t, fmt.Sprintf("%d/%s", p.Port, p.Protocol), ports[p.TargetPort], "%s %s", name, p.Name)
			}
		}
		require.Len(t, k.services[set.ServiceName].Spec.Ports, 4)
		for _, in := range k.policy.Spec.Ingress {
			require.NotEmpty(t, in.From, "everybody would be let in")
			for _, p := range in.Ports {
				require.True(t, strings.HasSuffix(ports[p.Port], "/"+p.Protocol), p.Port)
			}
			for _, f := range in.From {
				require.NotEmpty(t, f.PodSelector.MatchLabels)
			}
		}
		require.Len(t, k.policy.Spec.Ingress, 2)
		require.Len(t, k.policy.Spec.Ingress[0].Ports, 4, "gossip is TCP and UDP")
		require.Equal(t, []string{"Ingress"}, k.policy.Spec.PolicyTypes)
		for probe, want := range map[*k8sProbe]string{&c.StartupProbe: "/healthz", &c.LivenessProbe: "/healthz", &c.ReadinessProbe: "/readyz"} {
			require.Equal(t, want, probe.HTTPGet.Path)
			require.Equal(t, "http", probe.HTTPGet.Port)
			require.Equal(t, "HTTPS", probe.HTTPGet.Scheme)
		}
	})

	t.Run("volumes", func(t *testing.T) {
		mounts := map[string]string{}
		for _, m := range c.VolumeMounts {
			mounts[m.Name] = m.MountPath
			if m.Name == "identities" {
				require.True(t, m.ReadOnly)
			}
		}
		require.Equal(t, map[string]string{"data": "/var/lib/autoglm", "tmp": "/tmp", "identities": cfg.Cluster.Identity}, mounts)
		require.Len(t, set.VolumeClaimTemplates, 1)
		require.Equal(t, "data", set.VolumeClaimTemplates[0].Metadata.Name)
		require.Len(t, pod.Volumes, 2)
		keys := pod.Volumes[1].Projected
		require.NotNil(t, keys)
		require.Equal(t, 0o440, keys.DefaultMode, "the pod's group reads the keys; pki refuses those that everyone may read")
		require.Equal(t, pod.SecurityContext.RunAsGroup, pod.SecurityContext.FSGroup)
		require.Len(t, keys.Sources, set.Replicas)
	})

	t.Run("hardened", func(t *testing.T) {
		require.True(t, pod.SecurityContext.RunAsNonRoot)
		require.Equal(t, "RuntimeDefault", pod.SecurityContext.SeccompProfile.Type)
		require.True(t, c.SecurityContext.ReadOnlyRootFilesystem)
		require.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
		require.Equal(t, []string{"ALL"}, c.SecurityContext.Capabilities.Drop)
		require.False(t, *pod.AutomountServiceAccountToken)
	})
}

// The names of the pods are names of nodes, and all that a node's folder holds comes into its pod, from a Secret made of it.
func TestDeployKubernetesIdentities(t *testing.T) {
	k := readKubernetes(t)
	dir := filepath.Join(t.TempDir(), "autoglm-pki")
	var names []string
	for i := range k.set.Spec.Replicas {
		names = append(names, fmt.Sprintf("%s-%d", k.set.Metadata.Name, i))
	}
	admin, err := newAdminKey()
	require.NoError(t, err)
	require.NoError(t, pki.Init(dir, pki.InitOptions{Nodes: names, Admin: admin}))
	for i, name := range names {
		src := k.set.Spec.Template.Spec.Volumes[1].Projected.Sources[i].Secret
		require.Equal(t, fmt.Sprintf("autoglm-identity-%d", i), src.Name)
		files, err := os.ReadDir(filepath.Join(dir, "nodes", name))
		require.NoError(t, err)
		want, got := map[string]string{}, map[string]string{}
		for _, f := range files {
			want[f.Name()] = name + "/" + f.Name()
		}
		for _, item := range src.Items {
			got[item.Key] = item.Path
		}
		require.Equal(t, want, got)
	}
	readme := string(readDeploy(t, "kubernetes", "README.md"))
	require.Contains(t, readme, "kubectl create secret generic autoglm-identity-$i --from-file=autoglm-pki/nodes/autoglm-$i")
}
