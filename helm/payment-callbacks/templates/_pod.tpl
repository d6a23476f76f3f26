{{/* A role's pods, from `metadata` on: (dict "root" $ "role" "ledger"). Restricted; no value makes them less restricted. */}}

{{- define "payment-callbacks.pod" -}}
{{- $root := .root -}}
{{- $pods := $root.Values.pods -}}
{{- $own := get $root.Values .role -}}
{{- $document := include "payment-callbacks.document" .role -}}
metadata:
  labels:
    {{- include "payment-callbacks.role.labels" . | nindent 4 }}
    {{- with merge dict $own.podLabels $pods.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ .role }}
    # Its content need not outlive the process. Without this, the cluster autoscaler would not evict the pod from a node.
    cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes: tmp
    checksum/settings: {{ include "payment-callbacks.settings.toml" (dict "root" $root "document" $document) | sha256sum }}
    {{- with merge dict $own.podAnnotations $pods.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "payment-callbacks.pod.common" $root | nindent 2 }}
  terminationGracePeriodSeconds: {{ include "payment-callbacks.grace" . }}
  {{- with $own.priorityClassName | default $pods.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $own.nodeSelector | default $pods.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.tolerations | default $pods.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $own.affinity | default $pods.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if $pods.topologySpread }}
  topologySpreadConstraints:
    {{- range $pods.topologySpread }}
    - {{ toYaml . | nindent 6 | trim }}
      labelSelector:
        matchLabels:
          {{- include "payment-callbacks.role.selectorLabels" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .role }}
      {{- include "payment-callbacks.container" $root | nindent 6 }}
      args: [run, {{ .role }}]
      {{- include (printf "payment-callbacks.container.%s" .role) $root | nindent 6 }}
      resources:
        {{- toYaml $own.resources | nindent 8 }}
      env:
        {{- include "payment-callbacks.container.env" $root | nindent 8 }}
        {{- with concat $pods.extraEnv $own.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumeMounts:
        {{- include "payment-callbacks.container.mounts" $root | nindent 8 }}
        {{- if and (eq .role "receiver") $root.Values.settings.spool.enabled }}
        - { name: spool, mountPath: /var/lib/payment-callbacks }
        {{- end }}
        {{- with concat $pods.extraVolumeMounts $own.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "payment-callbacks.pod.volumes" (dict "root" $root "document" $document) | nindent 4 }}
    {{- with concat $pods.extraVolumes $own.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* For every pod of the release, including jobs and tests. */}}
{{- define "payment-callbacks.pod.common" -}}
serviceAccountName: {{ include "payment-callbacks.serviceAccountName" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .Values.runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  fsGroup: {{ int64 . }}
  {{- end }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "payment-callbacks.container" -}}
image: {{ include "payment-callbacks.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
# Shows in `kubectl describe pod` why a container ended.
terminationMessagePolicy: FallbackToLogsOnError
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "payment-callbacks.container.env" -}}
- name: PAYMENT_CALLBACKS_CONFIG
  value: /etc/payment-callbacks/payment-callbacks.toml
{{- end -}}

{{- define "payment-callbacks.container.mounts" -}}
- { name: settings, mountPath: /etc/payment-callbacks, readOnly: true }
- { name: secrets, mountPath: /run/secrets/payment-callbacks, readOnly: true }
- { name: tmp, mountPath: /tmp }
{{- end -}}

{{- define "payment-callbacks.pod.volumes" -}}
- name: settings
  configMap:
    name: {{ include "payment-callbacks.fullname" .root }}-settings
    items:
      - { key: {{ .document }}.toml, path: payment-callbacks.toml }
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- include "payment-callbacks.settings.secretSources" . | trim | default "[]" | nindent 6 }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- end -}}
