<?php
// A gateway after the document, by PHP's own openssl, ksort and json_encode: it shares no line with the service.
//
// Run it with PHP's built-in server: `PHP_CLI_SERVER_WORKERS=4 php -S 127.0.0.1:8091 gateway.php`. What it is told, by
// environment: JUDGE_STATE (a file of its own), JUDGE_UA, JUDGE_KEY, JUDGE_PAY_TYPE, and the dialect: JUDGE_KEY_FORM
// (raw, md5-hex, md5-16-upper), JUDGE_BITS (of the cipher; the key's without), JUDGE_MODE (ecb, cbc), JUDGE_IV (key,
// reversed, or a text), JUDGE_ENCODING (base64, base64-twice, hex), JUDGE_SEPARATOR, JUDGE_CALLBACK (json, form,
// multipart). POST / is the gateway. POST /settle makes an order terminal and calls back, as the test says.

declare(strict_types=1);
date_default_timezone_set('Asia/Shanghai');

final class Refused extends Exception {}

function setting(string $name, string $default = ''): string
{
    $value = getenv("JUDGE_$name");
    return $value === false ? $default : $value;
}

/** Changes the state under a lock; what `$change` returns is the answer. Several workers share the file. */
function with_state(callable $change): mixed
{
    $file = fopen(setting('STATE'), 'c+');
    flock($file, LOCK_EX);
    $state = json_decode(stream_get_contents($file) ?: 'null', true) ?? ['bindings' => [], 'orders' => [], 'calls' => []];
    try {
        return $change($state);
    } finally {
        ftruncate($file, 0);
        rewind($file);
        fwrite($file, json_encode($state));
        fflush($file);
        fclose($file);
    }
}

function decrypt(string $args): string
{
    $key = match (setting('KEY_FORM', 'raw')) {
        'raw' => setting('KEY'),
        'md5-hex' => md5(setting('KEY')),
        'md5-16-upper' => strtoupper(substr(md5(setting('KEY')), 8, 16)),
    };
    $mode = setting('MODE', 'ecb');
    $bytes = match (setting('ENCODING', 'base64')) {
        'base64' => base64_decode($args, true),
        'base64-twice' => base64_decode((string) base64_decode($args, true), true),
        'hex' => @hex2bin($args),
    };
    $iv = $mode === 'ecb' ? '' : match (setting('IV', 'key')) {
        'key' => substr($key, 0, 16),
        'reversed' => substr(strrev(setting('KEY')), 0, 16),
        default => setting('IV'),
    };
    $name = sprintf('aes-%d-%s', (int) setting('BITS') ?: strlen($key) * 8, $mode);
    $text = $bytes === false ? false : openssl_decrypt($bytes, $name, $key, OPENSSL_RAW_DATA, $iv);
    return $text === false ? throw new Refused('参数解密失败') : $text;
}

function open_request(): array
{
    $request = json_decode(file_get_contents('php://input'), true) ?? throw new Refused('请求参数错误');
    foreach (['ua', 'args', 'sign', 'requestId', 'method'] as $name) {
        is_string($request[$name] ?? null) || throw new Refused("缺少参数$name");
    }
    $request['ua'] === setting('UA') || throw new Refused('商户不存在');
    $parts = [$request['ua'], setting('KEY'), $request['method'], $request['args']];
    hash_equals(md5(implode(setting('SEPARATOR'), $parts)), $request['sign']) || throw new Refused('签名错误');
    $args = json_decode(decrypt($request['args']), true) ?? throw new Refused('参数解密失败');
    $sorted = $args;
    ksort($sorted);
    $sorted === $args && array_keys($sorted) === array_keys($args) || throw new Refused('参数未按key升序排序');
    return [$request['method'], $args, $request['requestId']];
}

function need(array $args, string ...$names): void
{
    foreach ($names as $name) {
        is_string($args[$name] ?? null) && $args[$name] !== '' || throw new Refused("参数错误:$name");
    }
    if (in_array('pay_type', $names, true) && $args['pay_type'] !== setting('PAY_TYPE')) {
        throw new Refused('支付类型不存在');
    }
}

function statement(array $order): array
{
    $names = ['biz_order_no', 'pay_order_no', 'pay_type', 'pay_status', 'pay_time', 'channel_response'];
    return array_intersect_key($order, array_flip($names));
}

function answer(array &$state, string $method, array $args): array
{
    switch ($method) {
        case 'pre-tied-card':
            need($args, 'id_card_number', 'bank_card_number', 'mobile', 'name', 'pay_type');
            $code = bin2hex(random_bytes(16));
            $state['bindings'][$code] = ['card' => $args['bank_card_number'], 'code' => (string) random_int(100000, 999999)];
            return ['unique_code' => $code];
        case 'confirm-tied-card':
            need($args, 'verification_code', 'unique_code', 'bank_card_number', 'pay_type');
            $binding = $state['bindings'][$args['unique_code']] ?? throw new Refused('签约唯一码不存在');
            $binding['card'] === $args['bank_card_number'] || throw new Refused('银行卡号不一致');
            $binding['code'] === $args['verification_code'] || throw new Refused('验证码错误');
            return ['protocol_no' => $state['bindings'][$args['unique_code']]['protocol'] ??= 'XY' . bin2hex(random_bytes(8))];
        case 'single-withhold':
            need($args, 'biz_order_no', 'amount', 'name', 'id_card_number', 'mobile', 'pay_type');
            is_array($args['biz_data'] ?? null) || throw new Refused('参数错误:biz_data');
            $protocol = $args['biz_data']['protocol_no'] ?? null;
            $protocol === null || in_array($protocol, array_column($state['bindings'], 'protocol'), true)
                || throw new Refused('协议号不存在');
            isset($state['orders'][$args['biz_order_no']]) && throw new Refused('业务流水号已存在');
            return statement($state['orders'][$args['biz_order_no']] = [
                'biz_order_no' => $args['biz_order_no'],
                'pay_order_no' => date('YmdHis') . random_int(100000, 999999),
                'pay_type' => $args['pay_type'],
                'pay_status' => 'pending',
                'pay_time' => '',
                'channel_response' => '',
                'amount' => $args['amount'],
                'notify_url' => $args['notify_url'] ?? '',
            ]);
        case 'single-order-query':
            need($args, 'biz_order_no');
            return statement($state['orders'][$args['biz_order_no']] ?? throw new Refused('订单不存在'));
    }
    throw new Refused('接口不存在');
}

/** What PHP's curl sends where CURLOPT_POSTFIELDS is an array. */
function multipart(array $fields): string
{
    $boundary = '--------------------------d74496d66958873e';
    $parts = '';
    foreach ($fields as $name => $value) {
        $parts .= "$boundary\r\nContent-Disposition: form-data; name=\"$name\"\r\n\r\n$value\r\n";
    }
    return "$parts$boundary--\r\n";
}

/** Makes the order terminal and calls back, signed over ksort and json_encode; the receiver's answer is returned. */
function settle(array $wish): array
{
    $order = with_state(function (array &$state) use ($wish): array {
        $order = &$state['orders'][$wish['biz_order_no']];
        $order['pay_status'] = $wish['pay_status'];
        $order['pay_time'] = $wish['pay_status'] === 'success' ? date('Y-m-d H:i:s') : '';
        $order['channel_response'] = $wish['channel_response'];
        return $order;
    });
    $fields = ['order_type' => 'single_withhold'] + statement($order);
    ksort($fields);
    $fields['sign'] = md5(json_encode($fields));
    [$type, $content] = match (setting('CALLBACK', 'json')) {
        'json' => ['application/json', json_encode($fields)],
        'form' => ['application/x-www-form-urlencoded', http_build_query($fields)],
        'multipart' => ['multipart/form-data; boundary=------------------------d74496d66958873e', multipart($fields)],
    };
    $body = @file_get_contents($order['notify_url'], false, stream_context_create(['http' => [
        'method' => 'POST',
        'header' => "Content-Type: $type",
        'content' => $content,
        'timeout' => 5,
        'ignore_errors' => true,
    ]]));
    return ['status' => $http_response_header[0] ?? '', 'body' => $body];
}

header('Content-Type: application/json;charset=UTF-8');
if ($_SERVER['REQUEST_METHOD'] !== 'POST') {
    echo json_encode(['alive' => true]);
} elseif ($_SERVER['REQUEST_URI'] === '/settle') {
    echo json_encode(settle(json_decode(file_get_contents('php://input'), true)));
} else {
    try {
        [$method, $args, $request_id] = open_request();
        $response = with_state(function (array &$state) use ($method, $args, $request_id): array {
            $state['calls'][] = ['method' => $method, 'requestId' => $request_id];
            return answer($state, $method, $args);
        });
        echo json_encode(['status' => 1, 'message' => '成功', 'response' => $response]);
    } catch (Refused $refused) {
        echo json_encode(['status' => -1, 'message' => $refused->getMessage(), 'response' => []]);
    }
}
