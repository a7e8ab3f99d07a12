package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// deployPath names a file of docs/deploy.
func deployPath(parts ...string) string {
	return filepath.Join(append([]string{"..", "..", "docs", "deploy"}, parts...)...)
}

func readDeploy(t *testing.T, parts ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(deployPath(parts...))
	require.NoError(t, err)
	return b
}

// strictYAML refuses what v has no field for.
func strictYAML(t *testing.T, b []byte, v any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	require.NoError(t, d.Decode(v))
	var more any
	require.True(t, errors.Is(d.Decode(&more), io.EOF), "one document")
}

// The types below are the part of each API that the files use, spelled as in the API: a field that a file
// misspells, or uses for the first time, is an error of strictYAML.

type labels map[string]string

type k8sMeta struct {
	Name   string `yaml:"name"`
	Labels labels `yaml:"labels"`
}

type k8sHead struct {
	APIVersion string  `yaml:"apiVersion"`
	Kind       string  `yaml:"kind"`
	Metadata   k8sMeta `yaml:"metadata"`
}

type k8sSelector struct {
	MatchLabels labels `yaml:"matchLabels"`
}

type k8sService struct {
	k8sHead `yaml:",inline"`
	Spec    struct {
		ClusterIP                string `yaml:"clusterIP"`
		PublishNotReadyAddresses bool   `yaml:"publishNotReadyAddresses"`
		Selector                 labels `yaml:"selector"`
		Ports                    []struct {
			Name       string `yaml:"name"`
			Port       int    `yaml:"port"`
			TargetPort string `yaml:"targetPort"`
			Protocol   string `yaml:"protocol"`
		} `yaml:"ports"`
	} `yaml:"spec"`
}

type k8sStatefulSet struct {
	k8sHead `yaml:",inline"`
	Spec    struct {
		ServiceName         string `yaml:"serviceName"`
		Replicas            int    `yaml:"replicas"`
		PodManagementPolicy string `yaml:"podManagementPolicy"`
		MinReadySeconds     int    `yaml:"minReadySeconds"`
		UpdateStrategy      struct {
			Type string `yaml:"type"`
		} `yaml:"updateStrategy"`
		Retention struct {
			WhenDeleted string `yaml:"whenDeleted"`
			WhenScaled  string `yaml:"whenScaled"`
		} `yaml:"persistentVolumeClaimRetentionPolicy"`
		Selector k8sSelector `yaml:"selector"`
		Template struct {
			Metadata k8sMeta `yaml:"metadata"`
			Spec     k8sPod  `yaml:"spec"`
		} `yaml:"template"`
		VolumeClaimTemplates []struct {
			Metadata k8sMeta `yaml:"metadata"`
			Spec     struct {
				AccessModes []string `yaml:"accessModes"`
				Resources   struct {
					Requests map[string]string `yaml:"requests"`
				} `yaml:"resources"`
			} `yaml:"spec"`
		} `yaml:"volumeClaimTemplates"`
	} `yaml:"spec"`
}

type k8sPod struct {
	AutomountServiceAccountToken  *bool `yaml:"automountServiceAccountToken"`
	EnableServiceLinks            *bool `yaml:"enableServiceLinks"`
	TerminationGracePeriodSeconds int   `yaml:"terminationGracePeriodSeconds"`
	TopologySpreadConstraints     []struct {
		MaxSkew           int         `yaml:"maxSkew"`
		TopologyKey       string      `yaml:"topologyKey"`
		WhenUnsatisfiable string      `yaml:"whenUnsatisfiable"`
		LabelSelector     k8sSelector `yaml:"labelSelector"`
	} `yaml:"topologySpreadConstraints"`
	SecurityContext struct {
		RunAsNonRoot        bool   `yaml:"runAsNonRoot"`
		RunAsUser           int    `yaml:"runAsUser"`
		RunAsGroup          int    `yaml:"runAsGroup"`
		FSGroup             int    `yaml:"fsGroup"`
		FSGroupChangePolicy string `yaml:"fsGroupChangePolicy"`
		SeccompProfile      struct {
			Type string `yaml:"type"`
		} `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Containers []k8sContainer `yaml:"containers"`
	Volumes    []struct {
		Name     string `yaml:"name"`
		EmptyDir *struct {
			SizeLimit string `yaml:"sizeLimit"`
		} `yaml:"emptyDir"`
		Projected *struct {
			DefaultMode int `yaml:"defaultMode"`
			Sources     []struct {
				Secret struct {
					Name  string `yaml:"name"`
					Items []struct {
						Key  string `yaml:"key"`
						Path string `yaml:"path"`
					} `yaml:"items"`
				} `yaml:"secret"`
			} `yaml:"sources"`
		} `yaml:"projected"`
	} `yaml:"volumes"`
}

type k8sProbe struct {
	HTTPGet struct {
		Path   string `yaml:"path"`
		Port   string `yaml:"port"`
		Scheme string `yaml:"scheme"`
	} `yaml:"httpGet"`
	PeriodSeconds    int `yaml:"periodSeconds"`
	TimeoutSeconds   int `yaml:"timeoutSeconds"`
	FailureThreshold int `yaml:"failureThreshold"`
}

type k8sContainer struct {
	Name  string   `yaml:"name"`
	Image string   `yaml:"image"`
	Args  []string `yaml:"args"`
	Env   []struct {
		Name      string `yaml:"name"`
		Value     string `yaml:"value"`
		ValueFrom struct {
			FieldRef struct {
				FieldPath string `yaml:"fieldPath"`
			} `yaml:"fieldRef"`
		} `yaml:"valueFrom"`
	} `yaml:"env"`
	Ports []struct {
		Name          string `yaml:"name"`
		ContainerPort int    `yaml:"containerPort"`
		Protocol      string `yaml:"protocol"`
	} `yaml:"ports"`
	StartupProbe   k8sProbe `yaml:"startupProbe"`
	LivenessProbe  k8sProbe `yaml:"livenessProbe"`
	ReadinessProbe k8sProbe `yaml:"readinessProbe"`
	Lifecycle      struct {
		PreStop struct {
			Sleep struct {
				Seconds int `yaml:"seconds"`
			} `yaml:"sleep"`
		} `yaml:"preStop"`
	} `yaml:"lifecycle"`
	Resources struct {
		Requests map[string]string `yaml:"requests"`
		Limits   map[string]string `yaml:"limits"`
	} `yaml:"resources"`
	SecurityContext struct {
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct {
			Drop []string `yaml:"drop"`
		} `yaml:"capabilities"`
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name        string `yaml:"name"`
		MountPath   string `yaml:"mountPath"`
		SubPathExpr string `yaml:"subPathExpr"`
		ReadOnly    bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

type k8sBudget struct {
	k8sHead `yaml:",inline"`
	Spec    struct {
		MaxUnavailable int         `yaml:"maxUnavailable"`
		Selector       k8sSelector `yaml:"selector"`
	} `yaml:"spec"`
}

type k8sPolicy struct {
	k8sHead `yaml:",inline"`
	Spec    struct {
		PodSelector k8sSelector `yaml:"podSelector"`
		PolicyTypes []string    `yaml:"policyTypes"`
		Ingress     []struct {
			From []struct {
				PodSelector k8sSelector `yaml:"podSelector"`
			} `yaml:"from"`
			Ports []struct {
				Port     string `yaml:"port"`
				Protocol string `yaml:"protocol"`
			} `yaml:"ports"`
		} `yaml:"ingress"`
	} `yaml:"spec"`
}

// k8sFile is docs/deploy/kubernetes/autoglm.yaml.
type k8sFile struct {
	services map[string]*k8sService
	set      *k8sStatefulSet
	budget   *k8sBudget
	policy   *k8sPolicy
}

func readKubernetes(t *testing.T) (f k8sFile) {
	t.Helper()
	f.services = map[string]*k8sService{}
	for doc := range bytes.SplitSeq(readDeploy(t, "kubernetes", "autoglm.yaml"), []byte("\n---\n")) {
		var head k8sHead
		require.NoError(t, yaml.Unmarshal(doc, &head))
		switch head.APIVersion + " " + head.Kind {
		case "v1 Service":
			s := &k8sService{}
			strictYAML(t, doc, s)
			f.services[s.Metadata.Name] = s
		case "apps/v1 StatefulSet":
			require.Nil(t, f.set)
			f.set = &k8sStatefulSet{}
			strictYAML(t, doc, f.set)
		case "policy/v1 PodDisruptionBudget":
			f.budget = &k8sBudget{}
			strictYAML(t, doc, f.budget)
		case "networking.k8s.io/v1 NetworkPolicy":
			f.policy = &k8sPolicy{}
			strictYAML(t, doc, f.policy)
		default:
			t.Fatalf("%s %s is not known here", head.APIVersion, head.Kind)
		}
	}
	require.NotNil(t, f.set)
	require.NotNil(t, f.budget)
	require.NotNil(t, f.policy)
	require.Len(t, f.set.Spec.Template.Spec.Containers, 1)
	return f
}

// composeFile is docs/deploy/compose/docker-compose.yml. Its anchors are checked where they are used.
type composeFile struct {
	Name         string                    `yaml:"name"`
	XNode        any                       `yaml:"x-node"`
	XEnvironment any                       `yaml:"x-environment"`
	Services     map[string]composeService `yaml:"services"`
	Networks     map[string]struct{}       `yaml:"networks"`
	Volumes      map[string]struct{}       `yaml:"volumes"`
}

type composeService struct {
	Image string `yaml:"image"`
	Build struct {
		Context    string `yaml:"context"`
		Dockerfile string `yaml:"dockerfile"`
	} `yaml:"build"`
	Hostname        string            `yaml:"hostname"`
	Profiles        []string          `yaml:"profiles"`
	Command         []string          `yaml:"command"`
	Environment     map[string]string `yaml:"environment"`
	Networks        []string          `yaml:"networks"`
	NetworkMode     string            `yaml:"network_mode"`
	Ports           []string          `yaml:"ports"`
	Restart         string            `yaml:"restart"`
	StopGracePeriod string            `yaml:"stop_grace_period"`
	ReadOnly        bool              `yaml:"read_only"`
	Tmpfs           []string          `yaml:"tmpfs"`
	CapDrop         []string          `yaml:"cap_drop"`
	SecurityOpt     []string          `yaml:"security_opt"`
	Healthcheck     struct {
		Test        []string `yaml:"test"`
		Interval    string   `yaml:"interval"`
		Timeout     string   `yaml:"timeout"`
		Retries     int      `yaml:"retries"`
		StartPeriod string   `yaml:"start_period"`
	} `yaml:"healthcheck"`
	Volumes []struct {
		Type     string `yaml:"type"`
		Source   string `yaml:"source"`
		Target   string `yaml:"target"`
		ReadOnly bool   `yaml:"read_only"`
		Volume   struct {
			NoCopy  bool   `yaml:"nocopy"`
			SubPath string `yaml:"subpath"`
		} `yaml:"volume"`
	} `yaml:"volumes"`
}

func readCompose(t *testing.T) (f composeFile) {
	t.Helper()
	strictYAML(t, readDeploy(t, "compose", "docker-compose.yml"), &f)
	return f
}

// readUnit returns the settings of a unit file by section and name; a name may be there several times.
func readUnit(t *testing.T) map[string][]string {
	t.Helper()
	opts, err := unit.DeserializeOptions(bytes.NewReader(readDeploy(t, "systemd", "autoglm.service")))
	require.NoError(t, err)
	all := map[string][]string{}
	for _, o := range opts {
		all[o.Section+"."+o.Name] = append(all[o.Section+"."+o.Name], o.Value)
	}
	return all
}

// readEnvFile reads NAME=VALUE lines as systemd does; the file needs no quoting.
func readEnvFile(t *testing.T) map[string]string {
	t.Helper()
	env := map[string]string{}
	for line := range strings.Lines(string(readDeploy(t, "systemd", "autoglm.env"))) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		require.True(t, ok, line)
		require.NotContains(t, value, " ", "needs quotes")
		env[name] = value
	}
	return env
}

// dockerfile returns the instructions with their arguments, in order.
func dockerfile(t *testing.T) (all [][2]string) {
	t.Helper()
	for line := range strings.Lines(string(readDeploy(t, "Dockerfile"))) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		require.False(t, strings.HasSuffix(line, `\`), "no continued lines are read here: %s", line)
		word, rest, _ := strings.Cut(line, " ")
		all = append(all, [2]string{word, strings.TrimSpace(rest)})
	}
	return all
}
